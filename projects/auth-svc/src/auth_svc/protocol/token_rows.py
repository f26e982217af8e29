"""Load: the rows a token request names, read in one snapshot before anything is decided."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from joserfc.jwk import KeySet
from sqlalchemy import bindparam, select

from auth_svc import listed, opaque
from auth_svc.clients import clients
from auth_svc.clients.client import CODE as CODE_GRANT
from auth_svc.clients.client import DEVICE, EXCHANGE, REFRESH, Client
from auth_svc.opaque import digest
from auth_svc.people import accounts, consents, delegations, sessions
from auth_svc.people.accounts import Account
from auth_svc.people.consents import Consent
from auth_svc.people.delegations import Delegation
from auth_svc.protocol import families
from auth_svc.protocol.families import Family
from auth_svc.protocol.issuer import Issuer
from auth_svc.rights import roles
from auth_svc.tables import codes, device_codes, refresh_tokens
from lib_auth.principal import Principal
from lib_events.database import Connection
from lib_events.prepared import Prepared

CODE = Prepared(select(codes).where(codes.c.digest == bindparam("digest")))
REFRESH_TOKEN = Prepared(select(refresh_tokens).where(refresh_tokens.c.digest == bindparam("digest")))
DEVICE_CODE = Prepared(select(device_codes).where(device_codes.c.digest == bindparam("digest")))

# A token type of our own (RFC 8693 section 3): the id of a delegation.
DELEGATION: Final = "urn:event-based-svcs:params:oauth:token-type:delegation"


@dataclass(frozen=True, slots=True)
class Code:
    """An authorization code; the getters are what Authlib's grant asks of it."""

    digest: bytes = field(repr=False)
    family: Family
    redirect_uri: str
    code_challenge: str
    nonce: str | None
    expires_at: int
    used_at: int | None
    key_thumbprint: str | None = None
    code_challenge_method: str = "S256"

    def get_redirect_uri(self) -> str:
        """Where the code was sent."""
        return self.redirect_uri

    def get_scope(self) -> str:
        """What the person allowed."""
        return self.family.scope


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token; the getters are what Authlib's grant asks of it."""

    digest: bytes = field(repr=False)
    family: Family
    expires_at: int
    used_at: int | None
    salt: bytes | None = field(default=None, repr=False)

    def check_client(self, client: Client) -> bool:
        """RFC 6749 section 10.4: bound to the client it was issued to."""
        return self.family.client_id == client.id

    def is_kept_from(self, client: Client) -> bool:
        """Whether it outlives the sign-in it came from, and its client may not have such a one any more."""
        return self.family.session_id is None and consents.AWAY not in client.scopes

    def get_scope(self) -> str:
        """What the person allowed; a refresh may ask for less, never for more."""
        return self.family.scope


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """A device code; the getters are what Authlib's grant asks of it."""

    digest: bytes = field(repr=False)
    user_code: str
    client_id: str
    scope: str
    resources: tuple[str, ...]
    status: str
    family: Family | None
    interval_seconds: int
    polled_at: int | None
    expires_at: int

    def get_client_id(self) -> str:
        """The client it was issued to."""
        return self.client_id

    def get_scope(self) -> str:
        """What the person allowed."""
        return self.scope

    def get_user_code(self) -> str:
        """What the person typed."""
        return self.user_code


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Everything a decision about tokens may look at."""

    client: Client | None = None
    client_keys: KeySet | None = None  # where the client proves itself with a key
    code: Code | None = None
    refresh_token: RefreshToken | None = None
    successor: RefreshToken | None = None  # what a used refresh token was exchanged for
    device_code: DeviceCode | None = None
    account: Account | None = None
    subject: Principal | None = None  # whose token is exchanged (RFC 8693)
    subject_family: Family | None = None
    delegation: Delegation | None = None  # what is exchanged instead of a token
    consent: Consent | None = None  # what the person allowed the client that wants a delegation
    too_many: bool = False  # delegations of theirs with that client
    roles_refused_at: int = 0  # when something was last taken from a role


def load(
    connection: Connection,
    client_id: str | None,
    form: Mapping[str, str],
    subject: Principal | None,
    issuer: Issuer,
) -> TokenRows:
    """Read the rows that `form` names by what its grant takes, whatever else is in it.

    `subject` is who the token that is exchanged stands for: only the rows of that very token say whose it is.
    """
    client = usable_client(connection, client_id, issuer)
    code = refresh_token = successor = device_code = delegation = consent = None
    too_many = False
    family: Family | None = None
    grant = form.get("grant_type")
    if grant == CODE_GRANT and (code := _find_code(connection, form.get("code", ""))):
        family = code.family
    elif grant == REFRESH and (refresh_token := find_refresh_token(connection, form.get("refresh_token", ""))):
        family = refresh_token.family
        if refresh_token.salt is not None:
            successor = find_refresh_token(connection, opaque.derive(form["refresh_token"], refresh_token.salt))
    elif grant == DEVICE and (device_code := _find_device_code(connection, form.get("device_code", ""))):
        family = device_code.family
    elif grant == EXCHANGE and form.get("subject_token_type") == DELEGATION:
        delegation = delegations.find(connection, form.get("subject_token", ""))
        family = delegation.family if delegation else None
    elif grant == EXCHANGE and subject is not None and subject.family_id is not None:
        family = families.find(connection, subject.family_id)
        if form.get("requested_token_type") == DELEGATION and client is not None:
            consent = consents.find(connection, subject.subject, client.id)
            too_many = delegations.are_too_many(connection, subject.subject, client.id)
    account = accounts.find(connection, family.user_id) if family else None
    return TokenRows(
        client=client,
        code=code,
        refresh_token=refresh_token,
        successor=successor,
        device_code=device_code,
        account=account,
        subject=subject,
        subject_family=family if subject else None,
        delegation=delegation,
        consent=consent,
        too_many=too_many,
        roles_refused_at=roles.last_refused(connection),
    )


def usable_client(connection: Connection, client_id: str | None, issuer: Issuer) -> Client | None:
    """Return the client unless it is disabled or this issuer takes none of its kind."""
    client = clients.find(connection, client_id) if client_id else None
    if client is None or client.disabled_at is not None:
        return None
    not_here = client.loopback_only and not issuer.is_loopback
    not_now = client.origin == "document" and not issuer.takes_documents
    return None if not_here or not_now else client


def find_refresh_token(connection: Connection, token: str) -> RefreshToken | None:
    """Return the refresh token, used or not."""
    row = connection.row(REFRESH_TOKEN, digest=digest(token))
    family = families.find(connection, row.family_id) if row else None
    if row is None or family is None:
        return None
    return RefreshToken(row.digest, family, _last_moment(connection, family, row.expires_at), row.used_at, row.salt)


def _last_moment(connection: Connection, family: Family, expires_at: int) -> int:
    """Without `offline_access` nothing outlives the sign-in it came from (OpenID Connect Core section 11)."""
    session = sessions.find(connection, family.session_id) if family.session_id else None
    return min(expires_at, session.expires_at) if session else expires_at


def _find_code(connection: Connection, code: str) -> Code | None:
    row = connection.row(CODE, digest=digest(code))
    family = families.find(connection, row.family_id) if row else None
    if row is None or family is None:
        return None
    return Code(
        digest=row.digest,
        family=family,
        redirect_uri=row.redirect_uri,
        code_challenge=row.challenge,
        nonce=row.nonce,
        expires_at=row.expires_at,
        used_at=row.used_at,
        key_thumbprint=row.key_thumbprint,
    )


def _find_device_code(connection: Connection, code: str) -> DeviceCode | None:
    row = connection.row(DEVICE_CODE, digest=digest(code))
    if row is None:
        return None
    return DeviceCode(
        digest=row.digest,
        user_code=row.user_code,
        client_id=row.client_id,
        scope=row.scope,
        resources=listed.from_text(row.resources),
        status=row.status,
        family=families.find(connection, row.family_id) if row.family_id else None,
        interval_seconds=row.interval_seconds,
        polled_at=row.polled_at,
        expires_at=row.expires_at,
    )
