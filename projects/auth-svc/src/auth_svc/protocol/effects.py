"""What a protocol decision wants to happen: listed while deciding, committed in one transaction.

The effects that can lose a race come first; when one of them does, nothing of the decision happens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Table, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from auth_svc import listed
from auth_svc.people import sessions
from auth_svc.protocol import families
from auth_svc.protocol.families import Family
from auth_svc.tables import codes, device_codes, proofs, pushed_requests, refresh_tokens, revoked_tokens
from lib_auth.events import TokenIssued, TokenIssuedData, TokenRevoked, TokenRevokedData
from lib_events.database import Connection
from lib_events.event import Event


@dataclass(frozen=True, slots=True)
class UseCode:
    """Redeem an authorization code: it must be unused and its family alive."""

    digest: bytes
    family_id: str


@dataclass(frozen=True, slots=True)
class UseRefreshToken:
    """Rotate a refresh token: it must be unused and its family alive.

    `salt` tells its successor to whoever shows it again within `grace_micros`.
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
    """Take a proof that counts once: a client assertion or a DPoP proof."""

    digest: bytes
    expires_at: int


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
    """Keep what a person just allowed: their session must be alive."""

    family: Family
    session_id: str


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
    """Keep a fresh device code."""

    digest: bytes
    user_code: str
    client_id: str
    scope: str
    resources: tuple[str, ...]
    interval_seconds: int
    expires_at: int


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


type Raced = UseProof | UsePushedRequest | UseCode | UseRefreshToken | UseDeviceCode | StartFamily
type Effect = (
    Raced
    | BindKey
    | KillFamily
    | SaveCode
    | SaveRefreshToken
    | SaveDeviceCode
    | DevicePolled
    | RevokeToken
    | TellIssued
)
RACED = (UseProof, UsePushedRequest, UseCode, UseRefreshToken, UseDeviceCode, StartFamily)


def commit(connection: Connection, effects: Sequence[Effect], now: int) -> Raced | None:
    """Do all of `effects`, or none: then another request was first, and the effect that lost to it is returned."""
    for effect in effects:
        if isinstance(effect, RACED) and not _use(connection, effect, now):
            return effect
    for effect in effects:
        if not isinstance(effect, RACED):
            _do(connection, effect, now)
    return None


def issued_event(source: str, data: TokenIssuedData) -> Event:
    """The event of an issued access token."""
    return Event.of(TokenIssued, data, source=source, subject=data.token)


def _use(connection: Connection, effect: Raced, now: int) -> bool:  # noqa: PLR0911 - one way out for each kind
    """Compare and swap; what the effect depends on is locked first, so that its end is either seen or waits."""
    match effect:
        case StartFamily():
            return _start_family(connection, effect)
        case UseProof(digest, expires_at):
            return _use_proof(connection, digest, expires_at)
        case UsePushedRequest(digest):
            unused = (pushed_requests.c.digest == digest) & pushed_requests.c.used_at.is_(None)
            return _swap(connection, pushed_requests, unused, used_at=now)
    if not families.touch(connection, effect.family_id):
        return False
    match effect:
        case UseDeviceCode(digest):
            approved = (device_codes.c.digest == digest) & (device_codes.c.status == "approved")
            return _swap(connection, device_codes, approved, status="consumed")
        case UseCode(digest):
            unused = (codes.c.digest == digest) & codes.c.used_at.is_(None)
            used = _swap(connection, codes, unused, used_at=now)
        case UseRefreshToken(digest):
            unused = (refresh_tokens.c.digest == digest) & refresh_tokens.c.used_at.is_(None)
            used = _swap(connection, refresh_tokens, unused, used_at=now, salt=effect.salt)
            if not used and _was_just_used(connection, effect, now):
                return False  # by another tab of the same browser, most likely: it is told the same successor
    if not used:
        # RFC 9700 sections 2.1.1 and 4.14.2: nobody can tell which of the two was the thief.
        families.revoke(connection, effect.family_id, "a code or refresh token was used twice", now)
    return used


def _swap(connection: Connection, table: Table, expected: ColumnElement[bool], **values: Any) -> bool:
    return bool(connection.execute(update(table).where(expected).values(**values)).rowcount)


def _was_just_used(connection: Connection, effect: UseRefreshToken, now: int) -> bool:
    used_at = connection.scalar(select(refresh_tokens.c.used_at).where(refresh_tokens.c.digest == effect.digest))
    return used_at is not None and now - used_at < effect.grace_micros


def _use_proof(connection: Connection, digest: bytes, expires_at: int) -> bool:
    insert_into = sqlite.insert if connection.dialect_name == "sqlite" else postgresql.insert
    statement = insert_into(proofs).values(digest=digest, expires_at=expires_at).on_conflict_do_nothing()
    return bool(connection.execute(statement).rowcount)


def _start_family(connection: Connection, effect: StartFamily) -> bool:
    if not sessions.touch(connection, effect.session_id):
        return False
    families.start(connection, effect.family)
    return True


def _do(connection: Connection, effect: Effect, now: int) -> None:
    match effect:
        case KillFamily(family_id, why):
            families.revoke(connection, family_id, why, now)
        case BindKey(family_id, thumbprint):
            families.bind_key(connection, family_id, thumbprint)
        case SaveCode() | SaveRefreshToken() | SaveDeviceCode():
            _save(connection, effect, now)
        case DevicePolled(digest, interval):
            polled = update(device_codes).where(device_codes.c.digest == digest)
            connection.execute(polled.values(polled_at=now, interval_seconds=interval))
        case RevokeToken(token_id, expires_at):
            _revoke_token(connection, token_id, expires_at)
        case TellIssued(data):
            connection.publish(issued_event(connection.source, data))


def _save(connection: Connection, effect: SaveCode | SaveRefreshToken | SaveDeviceCode, now: int) -> None:
    values: dict[str, Any] = {name: getattr(effect, name) for name in effect.__slots__}
    match effect:
        case SaveCode():
            connection.execute(insert(codes).values(values))
        case SaveRefreshToken():
            connection.execute(insert(refresh_tokens).values(values | {"issued_at": now}))
        case SaveDeviceCode():
            values |= {"resources": listed.to_text(effect.resources), "status": "pending"}
            connection.execute(insert(device_codes).values(values))


def _revoke_token(connection: Connection, token_id: str, expires_at: int) -> None:
    known = connection.scalar(select(revoked_tokens.c.token_id).where(revoked_tokens.c.token_id == token_id))
    if known is not None:
        return
    connection.execute(insert(revoked_tokens).values(token_id=token_id, expires_at=expires_at))
    payload = TokenRevokedData(token=token_id, expires_at=expires_at)
    connection.publish(Event.of(TokenRevoked, payload, source=connection.source, subject=token_id))
