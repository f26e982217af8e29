"""What a client is: who it proves to be, where it may send people, and what it may ask for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import urlsplit, urlunsplit

from authlib.oauth2.rfc6749 import ClientMixin

from auth_svc import listed, opaque
from auth_svc.loopback import is_loopback
from auth_svc.protocol.families import LONGEST_ACCESS_SECONDS
from auth_svc.rights.resources import ALL_SCOPES
from lib_auth.jwks import ALGORITHM

ACCESS_TOKEN_SECONDS = 300
CODE = "authorization_code"
REFRESH = "refresh_token"
CREDENTIALS = "client_credentials"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
GRANT_TYPES = (CODE, REFRESH, CREDENTIALS, DEVICE, EXCHANGE)
BY_SECRET = ("client_secret_basic", "client_secret_post")
BY_KEY = "private_key_jwt"
CONFIDENTIAL: Final = [*BY_SECRET, BY_KEY]
ANY_CLIENT: Final = [*CONFIDENTIAL, "none"]
ID_TOKEN_ALGORITHMS = (ALGORITHM, "RS256")
DEFAULT_SCOPE = "openid profile"

# RFC 6749 section 3.1.2: absolute, without a fragment. Its origin becomes a source in a policy: nothing in it ends one.
REDIRECT_URI = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(?:[/?][\x21\x22\x24-\x7e]*)?")

# RFC 8252 section 7.1: the scheme of an app of its own is a domain name backwards, which has a dot.
PRIVATE_USE = re.compile(r"[a-z][a-z0-9-]*(?:\.[a-z0-9-]+)+:/(?!/)[\x21\x22\x24-\x7e]*")

type Consent = Literal["never", "once", "always"]
type Origin = Literal["own", "administrator", "registered", "document"]


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
    auth_method: str | None = None  # None: its secret either way, or nothing where it has none
    jwks: str | None = None  # its public keys, JSON
    jwks_uri: str | None = None
    id_token_algorithm: str = ALGORITHM
    dpop_bound: bool = False
    pushed_only: bool = False
    logout_uri: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)  # what is only shown: home page, contacts, …
    origin: Origin = "administrator"
    registration_digest: bytes | None = field(default=None, repr=False)
    fetched_at: int | None = None
    tokens_valid_after: int = 0  # older access tokens are refused
    granted_at: int | None = None  # of a registered one: when it last got a token, to the day
    default_max_age: int | None = None  # how many seconds old a sign-in may be, unless a request says so

    @property
    def auth_methods(self) -> tuple[str, ...]:
        """How the client proves who it is."""
        if self.auth_method is not None:
            return (self.auth_method,)
        return ("none",) if self.secret_digest is None else BY_SECRET

    @property
    def is_public(self) -> bool:
        """Whether the client cannot prove who it is (RFC 6749 section 2.1)."""
        return "none" in self.auth_methods

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
        return any(
            _same_redirect(registered, redirect_uri, any_port=self.is_public) for registered in self.redirect_uris
        )

    def check_client_secret(self, client_secret: str) -> bool:
        """Compare in constant time."""
        return self.secret_digest is not None and opaque.matches(client_secret, self.secret_digest)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:  # noqa: ARG002
        """Each client proves who it is in its own way, everywhere."""
        return method in self.auth_methods

    def check_response_type(self, response_type: str) -> bool:
        """Only `code` (OAuth 2.1 section 1.5)."""
        return response_type == "code" and CODE in self.grant_types

    def check_grant_type(self, grant_type: str) -> bool:
        """See `ClientMixin`."""
        return grant_type in self.grant_types


def check(client: Client, *, scopes: frozenset[str] = ALL_SCOPES) -> None:
    """Raise `ClientRejected` naming the field that breaks a rule."""
    for name in ("redirect_uris", "post_logout_redirect_uris"):
        for uri in getattr(client, name):
            if not _may_be_redirect(uri) and not (client.is_public and PRIVATE_USE.fullmatch(uri)):
                wanted = "https, http on loopback, or of a public client's own scheme like com.example.app:/callback"
                raise ClientRejected(name, f"a redirect URI must be {wanted}, got {uri!r}")
    if unknown := client.scopes - scopes:
        raise ClientRejected("scopes", f"scopes must be known, got {', '.join(sorted(unknown))}")
    if unknown_grants := set(client.grant_types) - set(GRANT_TYPES):
        raise ClientRejected("grant_types", f"grant types must be known, got {', '.join(sorted(unknown_grants))}")
    if client.is_public and {CREDENTIALS, EXCHANGE} & set(client.grant_types):
        raise ClientRejected("grant_types", "client_credentials and token exchange need a client that proves itself")
    _check_authentication(client)
    if not 1 <= client.access_token_seconds <= LONGEST_ACCESS_SECONDS:
        raise ClientRejected("access_token_seconds", f"must be 1 to {LONGEST_ACCESS_SECONDS}")


def _check_authentication(client: Client) -> None:
    if client.auth_method not in (None, *ANY_CLIENT):
        raise ClientRejected("auth_method", f"must be one of {', '.join(ANY_CLIENT)}, got {client.auth_method!r}")
    if client.jwks is not None and client.jwks_uri is not None:
        raise ClientRejected("jwks_uri", "must not come with jwks: give one of the two")  # RFC 7591 section 2
    if client.auth_method == BY_KEY and client.jwks is None and client.jwks_uri is None:
        raise ClientRejected("jwks", f"{BY_KEY} needs the client's public keys in jwks, or where they are in jwks_uri")
    if (client.auth_method in BY_SECRET) != (client.secret_digest is not None) and client.auth_method is not None:
        raise ClientRejected("auth_method", "a secret belongs to client_secret_basic or client_secret_post alone")
    if client.id_token_algorithm not in ID_TOKEN_ALGORITHMS:
        raise ClientRejected("id_token_algorithm", f"must be one of {', '.join(ID_TOKEN_ALGORITHMS)}")
    for name in ("jwks_uri", "logout_uri"):
        if (uri := getattr(client, name)) is not None and not _may_be_redirect(uri):
            raise ClientRejected(name, "must be https, or http on loopback")


def receiver_of(redirect_uri: str) -> str:
    """Who gets what comes to a redirect URI: a host, or the app that has the scheme."""
    parts = urlsplit(redirect_uri)
    return parts.hostname or parts.scheme


def _may_be_redirect(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        parts.port  # noqa: B018 - raises for one that is no port
    except ValueError:
        return False
    secure = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))
    return secure and REDIRECT_URI.fullmatch(uri) is not None


def _same_redirect(registered: str, requested: str, *, any_port: bool) -> bool:
    """`any_port`: whatever port was registered; else only where none was."""
    if registered == requested:
        return True
    try:
        wanted, port = urlsplit(registered), urlsplit(requested).port  # raises for a port that is no number
    except ValueError:
        return False
    # RFC 8252 section 7.3: on a loopback address any port must be allowed. `localhost` is a name, not an address.
    if wanted.scheme != "http" or wanted.hostname == "localhost" or not is_loopback(wanted.hostname):
        return False
    if port is None or not (any_port or wanted.port is None):
        return False
    host = wanted.netloc.removesuffix(f":{wanted.port}")
    return requested == urlunsplit(wanted._replace(netloc=f"{host}:{port}"))
