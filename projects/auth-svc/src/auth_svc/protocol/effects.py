"""What a protocol decision wants to happen: listed while deciding, committed in one transaction.

The effects that can lose a race come first; when one of them does, nothing of the decision happens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Table, bindparam, insert, select, update

from auth_svc import listed, opaque
from auth_svc.clients import clients as client_rows
from auth_svc.people import consents, delegations, sessions
from auth_svc.people.delegations import Delegation
from auth_svc.protocol import families
from auth_svc.protocol.families import Family
from auth_svc.tables import clients, codes, device_codes, proofs, pushed_requests, refresh_tokens, revoked_tokens
from lib_auth.events import TokenIssued, TokenIssuedData, TokenRevoked, TokenRevokedData
from lib_auth.used_proofs import taking
from lib_events.database import Connection, insert_into
from lib_events.event import EncodedEvent, Event
from lib_events.prepared import Prepared


@dataclass(frozen=True, slots=True)
class UseCode:
    """Redeem an authorization code: it must be unused and its family alive."""

    digest: bytes
    family_id: str


@dataclass(frozen=True, slots=True)
class UseRefreshToken:
    """Rotate a refresh token: it must be unused and its family alive.

    `salt` tells its successor to whoever shows it again within `grace_micros`, or with the same idempotency key.
    """

    digest: bytes
    family_id: str
    salt: bytes = field(repr=False)
    grace_micros: int


@dataclass(frozen=True, slots=True)
class UseDeviceCode:
    """Redeem an approved device code: it must not be consumed and its family alive."""

    digest: bytes
    family_id: str


@dataclass(frozen=True, slots=True)
class UseProof:
    """Take a DPoP proof, which counts once."""

    digest: bytes
    expires_at: int


@dataclass(frozen=True, slots=True)
class UseAssertion(UseProof):
    """Take what a client says of itself, which counts once, too."""


@dataclass(frozen=True, slots=True)
class UsePushedRequest:
    """Answer a pushed authorization request with a code: that must not have happened yet."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class BindKey:
    """Bind a family's refresh tokens to a key."""

    family_id: str
    thumbprint: str


@dataclass(frozen=True, slots=True)
class StartFamily:
    """Keep what a person just allowed: their session and what they allowed `before` must be alive, the client there."""

    family: Family
    session_id: str
    before: bool = False  # they were not asked: they have allowed it once


@dataclass(frozen=True, slots=True)
class StartDelegation:
    """Keep what a client may do for a person who is away: what it comes from must be alive."""

    delegation: Delegation
    family_id: str  # of the token it was asked for with


@dataclass(frozen=True, slots=True)
class UseDelegation:
    """Remember that a delegation is used; its family says whether its tokens are good."""

    delegation: Delegation


@dataclass(frozen=True, slots=True)
class UseClient:
    """Remember that a client that registered itself is used: what nobody uses is pruned."""

    client_id: str


@dataclass(frozen=True, slots=True)
class KillFamily:
    """End a family because one of its secrets was used twice."""

    family_id: str
    why: str


@dataclass(frozen=True, slots=True)
class SaveCode:
    """Keep a fresh authorization code."""

    digest: bytes
    family_id: str
    redirect_uri: str
    challenge: str
    nonce: str | None
    key_thumbprint: str | None
    expires_at: int


@dataclass(frozen=True, slots=True)
class SaveRefreshToken:
    """Keep a fresh refresh token."""

    digest: bytes
    family_id: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class SaveDeviceCode:
    """Keep a fresh device code: its client must be there still."""

    digest: bytes
    user_code: str
    client_id: str
    scope: str
    resources: tuple[str, ...]
    interval_seconds: int
    expires_at: int
    address: str | None


@dataclass(frozen=True, slots=True)
class DevicePolled:
    """Remember when a device asked and how long it has to wait now."""

    digest: bytes
    interval_seconds: int


@dataclass(frozen=True, slots=True)
class RevokeToken:
    """Refuse one access token until it expires."""

    token_id: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class TellIssued:
    """Publish that an access token was issued."""

    data: TokenIssuedData


type Raced = (
    UseProof
    | UsePushedRequest
    | UseCode
    | UseRefreshToken
    | UseDeviceCode
    | StartFamily
    | StartDelegation
    | SaveDeviceCode
)
type Effect = (
    Raced
    | BindKey
    | KillFamily
    | SaveCode
    | SaveRefreshToken
    | DevicePolled
    | RevokeToken
    | TellIssued
    | UseDelegation
    | UseClient
)
RACED = (
    *(UseProof, UsePushedRequest, UseCode, UseRefreshToken, UseDeviceCode, StartFamily, StartDelegation),
    SaveDeviceCode,
)


def _swap(table: Table, expected: ColumnElement[bool], **values: Any) -> Prepared:
    """Write `values` to the row of a secret if it is as `expected`: of two who try at once, one changes a row."""
    return Prepared(update(table).where((table.c.digest == bindparam("secret")) & expected).values(**values))


take_proof = taking(proofs)
USE_PUSHED_REQUEST = _swap(pushed_requests, pushed_requests.c.used_at.is_(None), used_at=bindparam("now"))
USE_DEVICE_CODE = _swap(device_codes, device_codes.c.status == "approved", status="consumed")
USE_CODE = _swap(codes, codes.c.used_at.is_(None), used_at=bindparam("now"))
USE_REFRESH_TOKEN = _swap(
    refresh_tokens, refresh_tokens.c.used_at.is_(None), used_at=bindparam("now"), salt=bindparam("next_salt")
)
SAVE_CODE = Prepared(insert(codes).inline(), columns=SaveCode.__slots__)
SAVE_REFRESH_TOKEN = Prepared(insert(refresh_tokens).inline(), columns=(*SaveRefreshToken.__slots__, "issued_at"))
SAVE_DEVICE_CODE = Prepared(insert(device_codes).inline(), columns=(*SaveDeviceCode.__slots__, "status"))


def commit(connection: Connection, effects: Sequence[Effect], now: int) -> Raced | None:
    """Do all of `effects`, or none: then another request was first, and the effect that lost to it is returned."""
    for effect in effects:
        if isinstance(effect, RACED) and not _use(connection, effect, now):
            return effect
    for effect in effects:
        if not isinstance(effect, RACED):
            _do(connection, effect, now)
    return None


def issued_event(source: str, data: TokenIssuedData) -> EncodedEvent:
    """The event of an issued access token."""
    return EncodedEvent.of(TokenIssued, data, source=source, subject=data.token)


def _use(connection: Connection, effect: Raced, now: int) -> bool:  # noqa: C901, PLR0911 - one way out for each kind
    """Compare and swap; what the effect depends on is locked first, so that its end is either seen or waits."""
    match effect:
        case StartFamily():
            return _start_family(connection, effect)
        case UseProof(digest, expires_at):
            return take_proof(connection, digest, expires_at)
        case UsePushedRequest(digest):
            return bool(connection.change(USE_PUSHED_REQUEST, secret=digest, now=now))
        case SaveDeviceCode():
            return _save_device_code(connection, effect)
    if not families.touch(connection, effect.family_id):
        return False
    match effect:
        case StartDelegation(delegation):
            return delegations.begin(connection, delegation, now)
        case UseDeviceCode(digest):
            return bool(connection.change(USE_DEVICE_CODE, secret=digest))
        case UseCode(digest):
            used = bool(connection.change(USE_CODE, secret=digest, now=now))
        case UseRefreshToken(digest):
            used = bool(connection.change(USE_REFRESH_TOKEN, secret=digest, now=now, next_salt=effect.salt))
            if not used and _was_just_used(connection, effect, now):
                return False  # by another tab of the same browser, most likely: it is told the same successor
    if not used:
        # RFC 9700 sections 2.1.1 and 4.14.2: nobody can tell which of the two was the thief.
        families.revoke(connection, effect.family_id, "a code or refresh token was used twice", now)
    return used


def _was_just_used(connection: Connection, effect: UseRefreshToken, now: int) -> bool:
    """Whether it was used within the grace, or with the same idempotency key: that one waited as this one did."""
    columns = (refresh_tokens.c.used_at, refresh_tokens.c.salt)
    row = connection.execute(select(*columns).where(refresh_tokens.c.digest == effect.digest)).one_or_none()
    if row is None or row.used_at is None or not effect.grace_micros:
        return False
    key = opaque.idempotency_digest(effect.salt)
    return abs(now - row.used_at) < effect.grace_micros or (key != b"" and key == opaque.idempotency_digest(row.salt))


def _start_family(connection: Connection, effect: StartFamily) -> bool:
    family = effect.family
    if not sessions.touch(connection, effect.session_id) or not client_rows.stays(connection, family.client_id):
        return False
    if effect.before:
        consent = consents.keep(connection, family.user_id, family.client_id)
        if consent is None or not consent.covers(family.scopes, family.resources):
            return False
    families.make_room(connection, family)
    families.start(connection, family)
    return True


def _do(connection: Connection, effect: Effect, now: int) -> None:
    match effect:
        case KillFamily(family_id, why):
            families.revoke(connection, family_id, why, now)
        case BindKey(family_id, thumbprint):
            families.bind_key(connection, family_id, thumbprint)
        case SaveCode() | SaveRefreshToken():
            _save(connection, effect, now)
        case DevicePolled(digest, interval):
            polled = update(device_codes).where(device_codes.c.digest == digest)
            connection.execute(polled.values(polled_at=now, interval_seconds=interval))
        case RevokeToken(token_id, expires_at):
            _revoke_token(connection, token_id, expires_at)
        case UseDelegation(delegation):
            delegations.use(connection, delegation, now)
        case UseClient(client_id):
            connection.execute(update(clients).where(clients.c.id == client_id).values(granted_at=now))
        case TellIssued(data):
            connection.publish(issued_event(connection.source, data))


def _save(connection: Connection, effect: SaveCode | SaveRefreshToken, now: int) -> None:
    values: dict[str, Any] = {name: getattr(effect, name) for name in effect.__slots__}
    match effect:
        case SaveCode():
            connection.change(SAVE_CODE, **values)
        case SaveRefreshToken():
            connection.change(SAVE_REFRESH_TOKEN, **values, issued_at=now)


def _save_device_code(connection: Connection, effect: SaveDeviceCode) -> bool:
    if not client_rows.stays(connection, effect.client_id):
        return False
    values: dict[str, Any] = {name: getattr(effect, name) for name in effect.__slots__}
    values |= {"resources": listed.to_text(effect.resources), "status": "pending"}
    return bool(connection.change(SAVE_DEVICE_CODE, **values))


def _revoke_token(connection: Connection, token_id: str, expires_at: int) -> None:
    row = {"token_id": token_id, "expires_at": expires_at}
    statement = insert_into(connection, revoked_tokens).values(row).on_conflict_do_nothing()
    if not connection.execute(statement).rowcount:
        return  # somebody else revoked it, maybe at this very moment
    payload = TokenRevokedData(token=token_id, expires_at=expires_at)
    connection.publish(Event.of(TokenRevoked, payload, source=connection.source, subject=token_id))
