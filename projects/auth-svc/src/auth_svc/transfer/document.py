"""The document of an export: an installation's configuration and people, in words that mean the same elsewhere.

Every list is complete in itself and refers to the others by name, so that one document fits any installation.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from auth_svc.api.definition_views import Described, Description, Name, PermissionNames, RoleName, RoleNames, SigningAlg
from auth_svc.api.views import WITHOUT_NUL, Body
from auth_svc.clients.client import ACCESS_TOKEN_SECONDS, BY_KEY
from auth_svc.clients.details import ClientDetails

FORMAT = "evs-auth"
VERSION = 1
MANY = 500  # of what a first batch decides at once

Text = Annotated[str, Field(max_length=500, pattern=WITHOUT_NUL)]
Texts = Annotated[list[Text], Field(max_length=50, default_factory=list)]
Note = Annotated[str, Field(max_length=2_000)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
BASE32 = r"^([A-Z2-7]{8}){2,50}([A-Z2-7]{2}|[A-Z2-7]{4}|[A-Z2-7]{5}|[A-Z2-7]{7})?$"  # RFC 4648, without padding
Base64 = Annotated[str, Field(min_length=1, max_length=4_000, pattern=r"^[A-Za-z0-9_-]+$")]  # base64url, RFC 4648


class RoleItem(Body):
    """A role."""

    name: RoleName
    description: Description = ""
    includes: RoleNames
    permissions: PermissionNames


class ResourceItem(Body):
    """A resource server; of a built-in one only what was added counts."""

    id: Annotated[str, Field(max_length=64, pattern=WITHOUT_NUL)]
    identifier: Text
    name: Name
    scopes: Described
    permissions: Described
    access_token_seconds: int | None = None
    actors: Annotated[list[Text], Field(max_length=50, default_factory=list)]  # clients that act for people there
    signing_alg: SigningAlg = "ES256"
    secret_digest: Digest | None = Field(default=None, repr=False)  # of its client


class GroupItem(Body):
    """A group; who is in it is said by its members."""

    name: Name
    description: Description = ""
    roles: RoleNames


class UpstreamItem(Body):
    """Another OpenID provider whose people sign in here."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
    name: Annotated[str, Field(min_length=1, max_length=60, pattern=WITHOUT_NUL)]
    issuer: Annotated[str, Field(max_length=500, pattern=r"^https?://[!-~]+$")]
    client_id: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[ -~]+$")]
    scopes: Annotated[str, Field(max_length=300, pattern=r"^[!-~]+( [!-~]+)*$")] = "openid profile email"
    makes_accounts: bool = False
    domains: Annotated[
        list[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,252}$")]], Field(max_length=50, default_factory=list)
    ]
    client_secret: Annotated[str, Field(min_length=1, max_length=500)] | None = Field(default=None, repr=False)


class LinkItem(Body):
    """Who somebody is at another OpenID provider."""

    issuer: Annotated[str, Field(max_length=500, pattern=WITHOUT_NUL)]
    subject: Annotated[str, Field(min_length=1, max_length=255, pattern=WITHOUT_NUL)]


class PasskeyItem(Body):
    """A passkey; browsers offer it to the one host it was made for, as that of the one person."""

    host: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[!-~]+$")]
    credential_id: Base64
    public_key: Base64  # COSE
    sign_count: Annotated[int, Field(ge=0, lt=2**32)] = 0
    name: Annotated[str, Field(max_length=60, pattern=WITHOUT_NUL)] = ""
    synced: bool = False


class UserItem(Body):
    """A person; `password_hash` is of any kind that `password_hashes` reads."""

    id: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_-]+$")] | None = None
    username: Annotated[str, Field(max_length=64, pattern=WITHOUT_NUL)]
    name: Annotated[str, Field(max_length=80, pattern=WITHOUT_NUL)] | None = None
    email: Annotated[str, Field(max_length=254, pattern=WITHOUT_NUL)] | None = None
    email_verified: bool = False
    roles: RoleNames
    groups: Annotated[list[Name], Field(max_length=100, default_factory=list)]
    enabled: bool = True
    password_hash: Annotated[str, Field(max_length=500, pattern=WITHOUT_NUL)] | None = Field(default=None, repr=False)
    # The secret of an authenticator app in Base32: six digits every 30 seconds by SHA-1, as all of them can.
    # Of at least 112 bits (SP 800-63B-4, section 3.1.4.1).
    authenticator_secret: Annotated[str, Field(min_length=23, pattern=BASE32)] | None = Field(default=None, repr=False)
    # SHA-256 of those that are left.
    recovery_codes: Annotated[list[Digest], Field(max_length=20)] | None = Field(default=None, repr=False)
    passkeys: Annotated[list[PasskeyItem], Field(max_length=20)] | None = Field(default=None, repr=False)
    links: Annotated[list[LinkItem], Field(max_length=20)] | None = None
    note: Note | None = None  # what of them could not be taken along


class ClientItem(Body):
    """A client that is not of this product itself."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{2,64}$")]
    name: Name
    public: bool = False
    origin: Literal["administrator", "registered"] = "administrator"
    redirect_uris: Texts
    post_logout_redirect_uris: Texts
    grant_types: Texts
    scopes: Texts
    roles: RoleNames
    consent: Literal["never", "once", "always"] = "once"
    access_token_seconds: int = ACCESS_TOKEN_SECONDS
    auth_method: Literal["client_secret_basic", "client_secret_post", "private_key_jwt", "none"] | None = None
    jwks: Annotated[str, Field(max_length=64_000, pattern=WITHOUT_NUL)] | None = None
    jwks_uri: Annotated[str, Field(max_length=2_000, pattern=WITHOUT_NUL)] | None = None
    id_token_algorithm: Literal["ES256", "RS256"] = "ES256"  # noqa: S105 - a name
    default_max_age: Annotated[int, Field(ge=0)] | None = None
    details: ClientDetails | None = None
    dpop_bound: bool = False
    pushed_only: bool = False
    logout_uri: Annotated[str, Field(max_length=2_000, pattern=WITHOUT_NUL)] | None = None
    secret_digest: Digest | None = Field(default=None, repr=False)
    note: Note | None = None

    @property
    def needs_secret(self) -> bool:
        """Whether such a client proves itself with a secret."""
        return not self.public and self.auth_method not in (BY_KEY, "none")


class Document(Body):
    """Everything of an installation that another one can take over."""

    format: Literal["evs-auth"]
    version: Literal[1]
    exported_at: Text | None = None
    issuer: Text | None = None
    resources: Annotated[list[ResourceItem], Field(max_length=MANY, default_factory=list)]
    roles: Annotated[list[RoleItem], Field(max_length=MANY, default_factory=list)]
    groups: Annotated[list[GroupItem], Field(max_length=MANY, default_factory=list)]
    clients: Annotated[list[ClientItem], Field(max_length=MANY, default_factory=list)]
    upstreams: Annotated[list[UpstreamItem], Field(max_length=MANY, default_factory=list)]
    users: Annotated[list[UserItem], Field(max_length=200_000, default_factory=list)]


type Kind = Literal["resource", "role", "group", "client", "upstream", "user"]
type Outcome = Literal["created", "changed", "unchanged", "refused"]


class ReportItem(BaseModel):
    """What became of one item, or would; `secret` is a new client's, and nowhere else."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    name: str
    outcome: Outcome
    why: str | None = None
    secret: str | None = Field(default=None, repr=False)


class LeftOut(BaseModel):
    """Something of another system's export that has no place here, and what to do instead."""

    model_config = ConfigDict(frozen=True)

    kind: str
    name: str
    why: str


class Report(BaseModel):
    """What became of a document, item by item."""

    dry_run: bool
    counts: dict[Outcome, int]
    items: list[ReportItem]
    left_out: list[LeftOut] = []
