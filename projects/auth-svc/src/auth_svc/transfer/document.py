"""The document of an export: people, groups, roles, resources and clients, in words that mean the same elsewhere.

Every list is complete in itself and refers to the others by name, so that one document fits any installation.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from auth_svc.api.definition_views import Described, Description, Name, PermissionNames, RoleName, RoleNames
from auth_svc.api.views import WITHOUT_NUL, Body
from auth_svc.clients.client import ACCESS_TOKEN_SECONDS, BY_KEY

FORMAT = "evs-auth"
VERSION = 1
MANY = 500  # of what a first batch decides at once

Text = Annotated[str, Field(max_length=500, pattern=WITHOUT_NUL)]
Texts = Annotated[list[Text], Field(max_length=50, default_factory=list)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


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
    secret_digest: Digest | None = Field(default=None, repr=False)  # of its client


class GroupItem(Body):
    """A group; who is in it is said by its members."""

    name: Name
    description: Description = ""
    roles: RoleNames


class UserItem(Body):
    """A person."""

    id: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_-]+$")] | None = None
    username: Annotated[str, Field(max_length=64, pattern=WITHOUT_NUL)]
    name: Annotated[str, Field(max_length=80, pattern=WITHOUT_NUL)] | None = None
    email: Annotated[str, Field(max_length=254, pattern=WITHOUT_NUL)] | None = None
    email_verified: bool = False
    roles: RoleNames
    groups: Annotated[list[Name], Field(max_length=100, default_factory=list)]
    enabled: bool = True
    password_hash: Annotated[str, Field(max_length=500, pattern=WITHOUT_NUL)] | None = Field(default=None, repr=False)
    note: Annotated[str, Field(max_length=300)] | None = None  # what of them could not be taken along


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
    dpop_bound: bool = False
    pushed_only: bool = False
    logout_uri: Annotated[str, Field(max_length=2_000, pattern=WITHOUT_NUL)] | None = None
    secret_digest: Digest | None = Field(default=None, repr=False)

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
    users: Annotated[list[UserItem], Field(max_length=200_000, default_factory=list)]


type Outcome = Literal["created", "changed", "unchanged", "refused"]


class ReportItem(BaseModel):
    """What became of one item, or would; `secret` is a new client's, and nowhere else."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["resource", "role", "group", "client", "user"]
    name: str
    outcome: Outcome
    why: str | None = None
    secret: str | None = Field(default=None, repr=False)


class Report(BaseModel):
    """What became of a document, item by item."""

    dry_run: bool
    counts: dict[Outcome, int]
    items: list[ReportItem]
