"""Device codes as the person sees them: found by what they type, decided once."""

import secrets
from dataclasses import dataclass

from sqlalchemy import select, update

from auth_svc import audit, listed
from auth_svc.audit import Actor
from auth_svc.clients import clients
from auth_svc.clients.client import Client
from auth_svc.people import consents, sessions
from auth_svc.people.accounts import Account
from auth_svc.people.sessions import Session
from auth_svc.protocol import families
from auth_svc.tables import device_codes
from lib_events.database import Connection

# RFC 8628 section 6.1: no vowels (no words), nothing that looks alike.
USER_CODE_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
DEVICE_SECONDS = 600


@dataclass(frozen=True, slots=True)
class WaitingDevice:
    """A device that waits for the person."""

    user_code: str
    client: Client
    scopes: frozenset[str]
    resources: tuple[str, ...]
    asked_at: int
    address: str | None  # where it asks from


def new_user_code() -> str:
    """Eight letters, 34 bits: with ten minutes and a rate limit nobody guesses one."""
    letters = [secrets.choice(USER_CODE_LETTERS) for _ in range(8)]
    return "".join(letters[:4]) + "-" + "".join(letters[4:])


def normalise(typed: str) -> str:
    """Read a user code as people type it: any case, spaces or dashes anywhere (RFC 8628 section 6.1)."""
    letters = "".join(letter for letter in typed.upper() if letter in USER_CODE_LETTERS)
    return f"{letters[:4]}-{letters[4:]}" if len(letters) > 4 else letters


def find_waiting(connection: Connection, user_code: str, now: int) -> WaitingDevice | None:
    """Return the device that shows `user_code` and still waits."""
    query = select(device_codes).where(
        (device_codes.c.user_code == user_code)
        & (device_codes.c.status == "pending")
        & (device_codes.c.expires_at > now)
    )
    row = connection.execute(query).one_or_none()
    client = clients.find(connection, row.client_id) if row else None
    if row is None or client is None:
        return None
    scopes, asked_at = frozenset(row.scope.split()), row.expires_at - DEVICE_SECONDS * families.MICROS
    return WaitingDevice(user_code, client, scopes, listed.from_text(row.resources), asked_at, row.address)


def approve(connection: Connection, user_code: str, account: Account, session: Session, actor: Actor) -> bool:
    """Let the device in; False when it no longer waits or the person is signed out."""
    device = find_waiting(connection, user_code, actor.at)
    if device is None or not sessions.touch(connection, session.id):
        return False
    if not clients.stays(connection, device.client.id) or not _decide(connection, user_code, "approved"):
        return False
    family = families.opened(
        user_id=account.id,
        client_id=device.client.id,
        scope=listed.scope_text(device.scopes),
        resources=device.resources,
        session_id=session.id,
        authenticated_at=session.authenticated_at,
        methods=session.methods,
        now=actor.at,
    )
    families.make_room(connection, family)
    families.start(connection, family)
    belongs = update(device_codes).where(device_codes.c.user_code == user_code)
    connection.execute(belongs.values(family_id=family.id))
    consents.tell(connection, account.id, device.client.id, device.scopes, actor)
    audit.record(connection, actor, "device.approved", about=device.client.id, scope=family.scope)
    return True


def deny(connection: Connection, user_code: str, actor: Actor) -> bool:
    """Turn the device away; False when it no longer waits."""
    denied = _decide(connection, user_code, "denied")
    if denied:
        audit.record(connection, actor, "device.denied")
    return denied


def _decide(connection: Connection, user_code: str, status: str) -> bool:
    waiting = (device_codes.c.user_code == user_code) & (device_codes.c.status == "pending")
    return bool(connection.execute(update(device_codes).where(waiting).values(status=status)).rowcount)
