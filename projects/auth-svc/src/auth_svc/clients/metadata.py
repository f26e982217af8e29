"""What a client says of itself when nobody of ours has made it (RFC 7591 section 2, OpenID Registration section 2)."""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, field_validator

from auth_svc.clients.client import (
    CODE,
    CREDENTIALS,
    DEVICE,
    REFRESH,
    Client,
    ClientRejected,
    check,
)
from auth_svc.clients.details import LONGEST_AGE_SECONDS, ClientDetails, told
from auth_svc.clients.keys import KeysRejected, read_key_set
from auth_svc.listed import scope_text
from auth_svc.rights.resources import ALL_SCOPES, APP_SCOPES, OPENID

# What anybody's program may ask people for; never to decide in their name, never to administer.
OPEN_SCOPES = OPENID | (APP_SCOPES - {"approvals:decide", "workflows:manage"})
OPEN_GRANTS = frozenset((CODE, REFRESH, DEVICE))

type AuthMethod = Literal["client_secret_basic", "client_secret_post", "private_key_jwt", "none"]
type Uri = Annotated[str, Field(max_length=2_000)]
type Uris = Annotated[list[Uri], Field(max_length=20)]


class MetadataRejected(Exception):
    """A client cannot be registered like that; `error` is of RFC 7591 section 3.2.2."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error
        self.description = description


class ClientMetadata(ClientDetails):
    """The metadata we understand; what we do not is ignored (RFC 7591 section 2)."""

    model_config = ConfigDict(extra="ignore", strict=True)

    redirect_uris: Uris = Field(default=[])
    post_logout_redirect_uris: Uris = Field(default=[])
    token_endpoint_auth_method: AuthMethod = "client_secret_basic"  # noqa: S105 - a method's name
    grant_types: list[str] = Field(default=[CODE], max_length=10)
    response_types: list[str] | None = Field(default=None, max_length=10)
    client_name: str | None = Field(default=None, min_length=1, max_length=80)
    scope: str | None = Field(default=None, max_length=1_000)
    jwks: dict[str, Any] | None = None
    jwks_uri: Uri | None = None
    application_type: Literal["web", "native"] = "web"
    id_token_signed_response_alg: Literal["ES256", "RS256"] = "RS256"  # noqa: S105 - OpenID Registration's default
    subject_type: Literal["public"] = "public"
    default_max_age: int | None = Field(default=None, ge=0, le=LONGEST_AGE_SECONDS)
    dpop_bound_access_tokens: bool = False
    require_pushed_authorization_requests: bool = False
    backchannel_logout_uri: Uri | None = None

    @field_validator("client_name")
    @classmethod
    def _one_line(cls, name: str | None) -> str | None:
        if name is not None and not name.isprintable():
            raise ValueError("must be one line of visible characters")  # none that turn the letters around, too
        return name


@dataclass(frozen=True, slots=True)
class Policy:
    """What a client that registers itself may have."""

    scopes: frozenset[str] = OPEN_SCOPES
    grant_types: frozenset[str] = OPEN_GRANTS


def read_metadata(document: Any) -> ClientMetadata:
    """Return metadata that is well-formed; raises `MetadataRejected`."""
    try:
        return ClientMetadata.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"]) or "the document"
        code = "invalid_redirect_uri" if name.startswith("redirect_uris") else "invalid_client_metadata"
        raise MetadataRejected(code, f"{name}: {first['msg']}") from error


def to_client(client_id: str, metadata: ClientMetadata, policy: Policy, **values: Any) -> Client:
    """Return the client that `metadata` describes, within `policy`; raises `MetadataRejected`."""
    _check_flows(metadata, policy)
    client = Client(
        id=client_id,
        name=metadata.client_name or client_id,
        redirect_uris=tuple(metadata.redirect_uris),
        post_logout_redirect_uris=tuple(metadata.post_logout_redirect_uris),
        grant_types=tuple(metadata.grant_types),
        scopes=_scopes(metadata, policy),
        consent="once",
        auth_method=metadata.token_endpoint_auth_method,
        jwks=json.dumps(metadata.jwks) if metadata.jwks is not None else None,
        jwks_uri=metadata.jwks_uri,
        id_token_algorithm=metadata.id_token_signed_response_alg,
        dpop_bound=metadata.dpop_bound_access_tokens,
        pushed_only=metadata.require_pushed_authorization_requests,
        logout_uri=metadata.backchannel_logout_uri,
        default_max_age=metadata.default_max_age,
        details=told({name: getattr(metadata, name) for name in ClientDetails.model_fields}),
        **values,
    )
    try:
        if client.jwks is not None:
            read_key_set(client.jwks)
        check(client, scopes=ALL_SCOPES | policy.scopes)
    except KeysRejected as error:
        raise MetadataRejected("invalid_client_metadata", f"jwks {error}") from error
    except ClientRejected as error:
        code = "invalid_redirect_uri" if error.field == "redirect_uris" else "invalid_client_metadata"
        raise MetadataRejected(code, f"{error.field}: {error.detail}") from error
    return client


def describe(client: Client) -> dict[str, Any]:
    """A client's metadata as it is registered (RFC 7591 section 3.2.1)."""
    metadata: dict[str, Any] = {
        "client_id": client.id,
        "client_id_issued_at": client.created_at // 1_000_000,
        "client_name": client.name,
        "redirect_uris": list(client.redirect_uris),
        "post_logout_redirect_uris": list(client.post_logout_redirect_uris),
        "grant_types": list(client.grant_types),
        "response_types": ["code"] if CODE in client.grant_types else [],
        "token_endpoint_auth_method": client.auth_methods[0],
        "scope": scope_text(client.scopes),
        "jwks": json.loads(client.jwks) if client.jwks is not None else None,
        "jwks_uri": client.jwks_uri,
        "id_token_signed_response_alg": client.id_token_algorithm,
        "subject_type": "public",
        "default_max_age": client.default_max_age,
        "dpop_bound_access_tokens": client.dpop_bound,
        "require_pushed_authorization_requests": client.pushed_only,
        "backchannel_logout_uri": client.logout_uri,
        **client.details,
    }
    return {name: value for name, value in metadata.items() if value is not None}


def _check_flows(metadata: ClientMetadata, policy: Policy) -> None:
    wanted = frozenset(metadata.grant_types)
    if not wanted or not wanted <= policy.grant_types:
        allowed = ", ".join(sorted(policy.grant_types))
        raise MetadataRejected("invalid_client_metadata", f"grant_types must be among {allowed}")
    # RFC 7591 section 2.1: `code` belongs to the authorization code grant, and to it alone.
    fitting = {"code"} if CODE in wanted else set()
    if metadata.response_types is not None and set(metadata.response_types) != fitting:
        raise MetadataRejected("invalid_client_metadata", "response_types must be code with authorization_code alone")
    if CODE in wanted and not metadata.redirect_uris:
        raise MetadataRejected("invalid_redirect_uri", "redirect_uris must name where people come back to")
    if metadata.token_endpoint_auth_method == "none" and CREDENTIALS in wanted:  # noqa: S105 - a method's name
        raise MetadataRejected("invalid_client_metadata", "client_credentials needs a client that proves itself")


def _scopes(metadata: ClientMetadata, policy: Policy) -> frozenset[str]:
    """What was asked for and may be had; without a word, all of it (RFC 7591 section 2)."""
    wanted = policy.scopes if metadata.scope is None else frozenset(metadata.scope.split())
    if not wanted & policy.scopes:
        raise MetadataRejected("invalid_client_metadata", "scope must have one that may be asked for")
    return wanted & policy.scopes
