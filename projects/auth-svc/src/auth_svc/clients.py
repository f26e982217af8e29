"""Clients: the programs that may ask for tokens, what each may ask for, and those of the first start."""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from authlib.oauth2.rfc6749 import ClientMixin
from sqlalchemy import Row, insert, select, update

from auth_svc import listed, opaque
from auth_svc.audit import Actor, record
from auth_svc.families import LONGEST_ACCESS_SECONDS
from auth_svc.resources import ALL_SCOPES, known_scopes
from auth_svc.tables import clients
from lib_events.database import Connection

ACCESS_TOKEN_SECONDS = 300
CODE = "authorization_code"
REFRESH = "refresh_token"
CREDENTIALS = "client_credentials"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
GRANT_TYPES = (CODE, REFRESH, CREDENTIALS, DEVICE)
ANY_CLIENT = ["client_secret_basic", "client_secret_post", "none"]
CONFIDENTIAL = ["client_secret_basic", "client_secret_post"]
DEFAULT_SCOPE = "openid profile"

# RFC 6749 section 3.1.2: absolute, without a fragment. Its origin becomes a source in a policy: nothing in it ends one.
REDIRECT_URI = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(?:[/?][\x21\x22\x24-\x7e]*)?")

type Consent = Literal["never", "once", "always"]


class ClientRejected(Exception):
    """A client cannot be made like that; `field` is at fault."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Client(ClientMixin):  # type: ignore[misc]  # Authlib ships no types
    """One client; the methods are what Authlib's grants ask of it."""

    id: str
    name: str
    secret_digest: bytes | None = field(default=None, repr=False)
    redirect_uris: tuple[str, ...] = ()
    post_logout_redirect_uris: tuple[str, ...] = ()
    grant_types: tuple[str, ...] = (CODE, REFRESH)
    scopes: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    consent: Consent = "once"
    access_token_seconds: int = ACCESS_TOKEN_SECONDS
    resource: str | None = None
    loopback_only: bool = False
    created_at: int = 0
    disabled_at: int | None = None

    @property
    def is_public(self) -> bool:
        """Whether the client cannot keep a secret (RFC 6749 section 2.1)."""
        return self.secret_digest is None

    def get_client_id(self) -> str:
        """See `ClientMixin`."""
        return self.id

    def get_default_redirect_uri(self) -> str | None:
        """None: RFC 9700 section 4.1.3 compares what was sent, so something must be sent."""
        return None

    def get_allowed_scope(self, scope: str | None) -> str | None:
        """Return what the client may have of `scope`; None refuses (nothing of it is allowed)."""
        requested = frozenset((scope or DEFAULT_SCOPE).split())
        return listed.scope_text(requested & self.scopes) or None

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        """Whether the person may be sent there: the exact text, but for the port on loopback addresses."""
        return any(_same_redirect(registered, redirect_uri) for registered in self.redirect_uris)

    def check_client_secret(self, client_secret: str) -> bool:
        """Compare in constant time."""
        return self.secret_digest is not None and opaque.matches(client_secret, self.secret_digest)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:  # noqa: ARG002
        """Public clients name themselves, confidential ones prove it, everywhere."""
        return (method == "none") == self.is_public

    def check_response_type(self, response_type: str) -> bool:
        """Only `code` (OAuth 2.1 section 1.5)."""
        return response_type == "code" and CODE in self.grant_types

    def check_grant_type(self, grant_type: str) -> bool:
        """See `ClientMixin`."""
        return grant_type in self.grant_types


def find(connection: Connection, client_id: str) -> Client | None:
    """Return the client with that id."""
    row = connection.execute(select(clients).where(clients.c.id == client_id)).one_or_none()
    return None if row is None else read_client(row)


def page(connection: Connection, after: str | None, limit: int) -> Sequence[Client]:
    """Return up to `limit` clients in order of id."""
    query = select(clients).order_by(clients.c.id).limit(limit)
    if after is not None:
        query = query.where(clients.c.id > after)
    return [read_client(row) for row in connection.execute(query)]


def register(connection: Connection, client: Client, actor: Actor) -> Client:
    """Make a client; raises `ClientRejected`."""
    check(client, scopes=known_scopes(connection))
    if find(connection, client.id) is not None:
        raise ClientRejected("id", f"there is a client {client.id!r} already; choose another id")
    connection.execute(insert(clients).values(**_columns(client)))
    record(connection, actor, "client.registered", about=client.id, scopes=sorted(client.scopes))
    return client


def put(connection: Connection, client: Client) -> None:
    """Bring one of our own clients to what this release and its settings say."""
    if find(connection, client.id) is None:
        connection.execute(insert(clients).values(**_columns(client)))
        return
    columns = {name: value for name, value in _columns(client).items() if name not in ("id", "created_at")}
    connection.execute(update(clients).where(clients.c.id == client.id).values(**columns))


def check(client: Client, *, scopes: frozenset[str] = ALL_SCOPES) -> None:
    """Raise `ClientRejected` naming the field that breaks a rule."""
    for name in ("redirect_uris", "post_logout_redirect_uris"):
        for uri in getattr(client, name):
            if not _may_be_redirect(uri):
                raise ClientRejected(name, f"a redirect URI must be https, or http on loopback, got {uri!r}")
    if unknown := client.scopes - scopes:
        raise ClientRejected("scopes", f"scopes must be known, got {', '.join(sorted(unknown))}")
    if unknown_grants := set(client.grant_types) - set(GRANT_TYPES):
        raise ClientRejected("grant_types", f"grant types must be known, got {', '.join(sorted(unknown_grants))}")
    if client.is_public and CREDENTIALS in client.grant_types:
        raise ClientRejected("grant_types", "client_credentials needs a client with a secret")
    if not 1 <= client.access_token_seconds <= LONGEST_ACCESS_SECONDS:
        raise ClientRejected("access_token_seconds", f"must be 1 to {LONGEST_ACCESS_SECONDS}")


def is_loopback(host: str | None) -> bool:
    """Whether `host` is a loopback address or the name that stands for one."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def read_client(row: Row[Any]) -> Client:
    """Make a client of its row."""
    return Client(
        id=row.id,
        name=row.name,
        secret_digest=row.secret_digest,
        redirect_uris=listed.from_text(row.redirect_uris),
        post_logout_redirect_uris=listed.from_text(row.post_logout_redirect_uris),
        grant_types=listed.from_text(row.grant_types),
        scopes=frozenset(listed.from_text(row.scopes)),
        roles=frozenset(listed.from_text(row.roles)),
        consent=row.consent,
        access_token_seconds=row.access_token_seconds,
        resource=row.resource,
        loopback_only=row.loopback_only,
        created_at=row.created_at,
        disabled_at=row.disabled_at,
    )


def _columns(client: Client) -> dict[str, Any]:
    return {
        "id": client.id,
        "name": client.name,
        "secret_digest": client.secret_digest,
        "redirect_uris": listed.to_text(client.redirect_uris),
        "post_logout_redirect_uris": listed.to_text(client.post_logout_redirect_uris),
        "grant_types": listed.to_text(client.grant_types),
        "scopes": listed.to_text(sorted(client.scopes)),
        "roles": listed.to_text(sorted(client.roles)),
        "consent": client.consent,
        "access_token_seconds": client.access_token_seconds,
        "resource": client.resource,
        "loopback_only": client.loopback_only,
        "created_at": client.created_at,
        "disabled_at": client.disabled_at,
    }


def _may_be_redirect(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        parts.port  # noqa: B018 - raises for one that is no port
    except ValueError:
        return False
    secure = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))
    return secure and REDIRECT_URI.fullmatch(uri) is not None


def _same_redirect(registered: str, requested: str) -> bool:
    if registered == requested:
        return True
    try:
        wanted, got = urlsplit(registered), urlsplit(requested)
        port = got.port  # raises for a port that is no number
    except ValueError:
        return False
    # RFC 8252 section 7.3: on a loopback address any port must be allowed. `localhost` is a name, not an address.
    if wanted.scheme != "http" or wanted.port is not None or wanted.hostname == "localhost":
        return False
    if not is_loopback(wanted.hostname) or port is None or "@" in got.netloc:
        return False
    return requested == f"http://{wanted.netloc}:{port}{wanted.path}"
