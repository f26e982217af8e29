"""What a protocol decision wants to happen: listed while deciding, committed in one transaction.

The effects that can lose a race come first; when one of them does, nothing of the decision happens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select, update

from auth_svc import families, listed, sessions
from auth_svc.families import Family
from auth_svc.tables import codes, device_codes, refresh_tokens, revoked_tokens
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
    """Rotate a refresh token: it must be unused and its family alive."""

    digest: bytes
    family_id: str


@dataclass(frozen=True, slots=True)
class UseDeviceCode:
    """Redeem an approved device code: it must not be consumed and its family alive."""

    digest: bytes
    family_id: str


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


type Effect = (
    UseCode
    | UseRefreshToken
    | UseDeviceCode
    | StartFamily
    | KillFamily
    | SaveCode
    | SaveRefreshToken
    | SaveDeviceCode
    | DevicePolled
    | RevokeToken
    | TellIssued
)
RACED = (UseCode, UseRefreshToken, UseDeviceCode, StartFamily)
TABLES = {UseCode: codes, UseRefreshToken: refresh_tokens}


def commit(connection: Connection, effects: Sequence[Effect], now: int) -> bool:
    """Do all of `effects`, or none; False means another request was first."""
    for effect in effects:
        if isinstance(effect, RACED) and not _use(connection, effect, now):
            return False
    for effect in effects:
        if not isinstance(effect, RACED):
            _do(connection, effect, now)
    return True


def issued_event(source: str, data: TokenIssuedData) -> Event:
    """The event of an issued access token."""
    return Event.of(TokenIssued, data, source=source, subject=data.token)


def _use(connection: Connection, effect: UseCode | UseRefreshToken | UseDeviceCode | StartFamily, now: int) -> bool:
    """Compare and swap; what the effect depends on is locked first, so that its end is either seen or waits."""
    if isinstance(effect, StartFamily):
        return _start_family(connection, effect)
    if not families.touch(connection, effect.family_id):
        return False
    if isinstance(effect, UseDeviceCode):
        return _use_device_code(connection, effect)
    table = TABLES[type(effect)]
    unused = (table.c.digest == effect.digest) & table.c.used_at.is_(None)
    if connection.execute(update(table).where(unused).values(used_at=now)).rowcount:
        return True
    # RFC 9700 sections 2.1.1 and 4.14.2: nobody can tell which of the two was the thief.
    families.revoke(connection, effect.family_id, "a code or refresh token was used twice", now)
    return False


def _start_family(connection: Connection, effect: StartFamily) -> bool:
    if not sessions.touch(connection, effect.session_id):
        return False
    families.start(connection, effect.family)
    return True


def _use_device_code(connection: Connection, effect: UseDeviceCode) -> bool:
    approved = (device_codes.c.digest == effect.digest) & (device_codes.c.status == "approved")
    return bool(connection.execute(update(device_codes).where(approved).values(status="consumed")).rowcount)


def _do(connection: Connection, effect: Effect, now: int) -> None:
    match effect:
        case KillFamily(family_id, why):
            families.revoke(connection, family_id, why, now)
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
