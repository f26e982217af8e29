"""What the admin API takes and shows of clients."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, Field

from auth_svc.api.views import WITHOUT_NUL, Body
from auth_svc.clients.client import ACCESS_TOKEN_SECONDS, BY_KEY, CODE, GRANT_TYPES, REFRESH, Client
from auth_svc.clients.details import LONGEST_AGE_SECONDS, ClientDetails, told
from auth_svc.clients.metadata import AuthMethod
from lib_events.clock import to_datetime

SAME_NAME = (
    "name",
    "redirect_uris",
    "post_logout_redirect_uris",
    "grant_types",
    "scopes",
    "roles",
    "access_token_seconds",
    "consent",
    "auth_method",
    "jwks_uri",
    "id_token_algorithm",
    "dpop_bound",
    "pushed_only",
    "logout_uri",
    "default_max_age",
    "resource",
)


class ClientPatch(Body):
    """What changes of a client; members that are left out stay as they are."""

    name: str | None = Field(default=None, min_length=1, max_length=80, pattern=WITHOUT_NUL)
    redirect_uris: list[str] | None = Field(default=None, max_length=20)
    post_logout_redirect_uris: list[str] | None = Field(default=None, max_length=20)
    grant_types: list[str] | None = Field(default=None, max_length=len(GRANT_TYPES))
    scopes: list[str] | None = Field(default=None, max_length=50)
    roles: list[str] | None = Field(default=None, max_length=20)
    access_token_seconds: int | None = Field(default=None, ge=1, le=3600)
    consent: Literal["never", "once", "always"] | None = None
    auth_method: AuthMethod | None = None
    jwks: dict[str, Any] | None = None
    jwks_uri: str | None = Field(default=None, max_length=2_000)
    id_token_algorithm: Literal["ES256", "RS256"] | None = None
    dpop_bound: bool | None = None
    pushed_only: bool | None = None
    logout_uri: str | None = Field(default=None, max_length=2_000)
    default_max_age: int | None = Field(default=None, ge=0, le=LONGEST_AGE_SECONDS)
    details: ClientDetails | None = None  # of these, too, what is left out stays, and null takes one away

    def apply(self, client: Client) -> Client:
        """Return the client with what was sent; only what may be absent can be taken away by null."""
        given = self.model_dump(exclude_unset=True)
        kept = {name: value for name, value in given.items() if value is not None or name in REMOVABLE}
        if "details" in kept:
            kept["details"] = {**client.details, **kept["details"]}
        return replace(client, **as_columns(kept))


REMOVABLE = frozenset(("jwks", "jwks_uri", "logout_uri", "default_max_age"))


class ClientBody(Body):
    """A new client."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{1,63}$")
    name: str = Field(min_length=1, max_length=80, pattern=WITHOUT_NUL)
    public: bool = False
    auth_method: AuthMethod | None = None
    redirect_uris: list[str] = Field(default=[], max_length=20)
    post_logout_redirect_uris: list[str] = Field(default=[], max_length=20)
    grant_types: list[str] = Field(default=[CODE, REFRESH], max_length=len(GRANT_TYPES))
    scopes: list[str] = Field(default=["openid", "profile"], max_length=50)
    roles: list[str] = Field(default=[], max_length=20)
    access_token_seconds: int = Field(default=ACCESS_TOKEN_SECONDS, ge=1, le=3600)
    consent: Literal["never", "once", "always"] = "once"
    jwks: dict[str, Any] | None = None
    jwks_uri: str | None = Field(default=None, max_length=2_000)
    id_token_algorithm: Literal["ES256", "RS256"] = "RS256"  # noqa: S105 - what clients expect that were told nothing
    dpop_bound: bool = False
    pushed_only: bool = False
    logout_uri: str | None = Field(default=None, max_length=2_000)
    default_max_age: int | None = Field(default=None, ge=0, le=LONGEST_AGE_SECONDS)
    details: ClientDetails = ClientDetails()

    @property
    def needs_secret(self) -> bool:
        """Whether the client is to be given a secret."""
        return not self.public and self.auth_method not in (BY_KEY, "none")


class ClientView(BaseModel):
    """A client as administrators see it."""

    id: str
    name: str
    public: bool
    origin: str
    enabled: bool
    created_at: str
    redirect_uris: list[str]
    post_logout_redirect_uris: list[str]
    grant_types: list[str]
    scopes: list[str]
    roles: list[str]
    consent: str
    access_token_seconds: int
    auth_method: str | None
    jwks: dict[str, Any] | None
    jwks_uri: str | None
    id_token_algorithm: str
    dpop_bound: bool
    pushed_only: bool
    logout_uri: str | None
    default_max_age: int | None
    resource: str | None
    details: dict[str, Any]
    secret: str | None = None  # only in the answer that made it

    @classmethod
    def of(cls, client: Client, secret: str | None = None) -> "ClientView":
        """Show a client."""
        shown = {name: getattr(client, name) for name in SAME_NAME}
        shown |= {name: sorted(shown[name]) for name in ("scopes", "roles")}
        return cls(
            **shown,
            id=client.id,
            public=client.is_public,
            origin=client.origin,
            enabled=client.disabled_at is None,
            created_at=to_datetime(client.created_at).isoformat(),
            jwks=json.loads(client.jwks) if client.jwks is not None else None,
            details=dict(client.details),
            secret=secret,
        )


def as_columns(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return members of a body as the client has them."""
    values = dict(given)
    for name in ("redirect_uris", "post_logout_redirect_uris", "grant_types"):
        if name in values:
            values[name] = tuple(values[name])
    for name in ("scopes", "roles"):
        if name in values:
            values[name] = frozenset(values[name])
    if values.get("jwks") is not None:
        values["jwks"] = json.dumps(values["jwks"])
    if "details" in values:
        values["details"] = told(values["details"])
    return values
