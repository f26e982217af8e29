"""Authenticator apps (TOTP, RFC 6238): a shared secret, and codes of which each is taken once."""

import hmac
import re
from typing import Any
from urllib.parse import urlsplit

import pyotp
from sqlalchemy import Row, delete, insert, select, update

from auth_svc.audit import Actor
from auth_svc.factors import held
from auth_svc.mail import texts
from auth_svc.people import accounts
from auth_svc.people.accounts import Account
from auth_svc.proving import guesses
from auth_svc.tables import authenticator_apps
from lib_events.database import Connection
from lib_events.sealed import SealingKey, SecretUnreadable

STEP_MICROS = 30 * 1_000_000
CODE = re.compile(r"[0-9]{6}")
# RFC 6238 section 5.2: one step back and forth, for clocks that differ and people who type slowly.
WINDOW = (0, -1, 1)

apps = authenticator_apps.c


def set_up(connection: Connection, account: Account, actor: Actor, *, session: str, key: SealingKey) -> bool:
    """Make a secret in place of one never confirmed; False when an app is in use already.

    Until it is confirmed it is sealed for the session that makes it: whoever else is signed in to the account would
    read it, and have the second factor from its first moment.
    """
    sealed = key.seal(pyotp.random_base32(), purpose=_pending(account.id, session))
    return _keep(connection, account, sealed, actor.at, confirmed_at=None)


def adopt(connection: Connection, account: Account, secret: str, actor: Actor, *, key: SealingKey) -> bool:
    """Let an app count that was set up elsewhere, with its secret in Base32; False when one is in use already."""
    sealed = key.seal(secret, purpose=_purpose(account.id))
    if not _keep(connection, account, sealed, actor.at, confirmed_at=actor.at):
        return False
    held.tell_added(connection, account, held.APP, actor)
    return True


def unsealed(row: Row[Any], key: SealingKey) -> str:
    """Return the secret in Base32 of a row; raises `SecretUnreadable` when it was sealed with another key."""
    return key.unseal(row.sealed, purpose=_purpose(row.user_id))


def secret_to_confirm(connection: Connection, user_id: str, session: str, key: SealingKey) -> str | None:
    """Return the secret that was set up in this session and not confirmed yet."""
    unconfirmed = (apps.user_id == user_id) & apps.confirmed_at.is_(None)
    sealed = connection.scalar(select(apps.sealed).where(unconfirmed))
    if sealed is None:
        return None
    try:
        return key.unseal(sealed, purpose=_pending(user_id, session))
    except SecretUnreadable:  # it is another session's
        return None


def confirm(
    connection: Connection, account: Account, actor: Actor, *, session: str, code: str, key: SealingKey
) -> bool:
    """Let the app count from now on, if its code is right."""
    secret = secret_to_confirm(connection, account.id, session, key)
    if secret is None or not _use_step(connection, account.id, secret, code, actor.at):
        return False
    kept = {"sealed": key.seal(secret, purpose=_purpose(account.id)), "confirmed_at": actor.at}
    connection.execute(update(authenticator_apps).where(apps.user_id == account.id).values(kept))
    held.tell_added(connection, account, held.APP, actor)
    held.write_added(connection, account, held.APP, actor)
    return True


def check(connection: Connection, account: Account, code: str, key: SealingKey, actor: Actor) -> bool:
    """Whether `code` is one that the app shows now; it is used up then. Wrong ones are counted, and end in a stop."""
    confirmed = (apps.user_id == account.id) & apps.confirmed_at.is_not(None)
    sealed = connection.scalar(select(apps.sealed).where(confirmed))
    if sealed is None or guesses.are_too_many(connection, account.id):
        return False
    if _use_step(connection, account.id, key.unseal(sealed, purpose=_purpose(account.id)), code, actor.at):
        return True
    wrong = guesses.count(connection, account.id)
    if wrong in (guesses.WARNED_AT, guesses.MAX_IN_A_ROW):
        letter = texts.wrong_codes(account.username, wrong, guesses.MAX_IN_A_ROW)
        accounts.write_to(connection, account, letter, actor.at)
    if wrong == guesses.MAX_IN_A_ROW:
        held.tell_stopped(connection, account, held.APP, actor)
    return False


def remove(connection: Connection, account: Account, actor: Actor) -> None:
    """Take the app away."""
    if connection.execute(delete(authenticator_apps).where(apps.user_id == account.id)).rowcount:
        held.tell_removed(connection, account, held.APP, actor)


def setup_uri(secret: str, username: str, issuer: str) -> str:
    """What the QR code says (the key URI format that every app reads)."""
    return pyotp.TOTP(secret).provisioning_uri(name=username, issuer_name=urlsplit(issuer).netloc)


def _keep(connection: Connection, account: Account, sealed: bytes, now: int, *, confirmed_at: int | None) -> bool:
    unconfirmed = (apps.user_id == account.id) & apps.confirmed_at.is_(None)
    connection.execute(delete(authenticator_apps).where(unconfirmed))
    if connection.scalar(select(apps.user_id).where(apps.user_id == account.id)) is not None:
        return False
    values = {"user_id": account.id, "sealed": sealed, "created_at": now, "confirmed_at": confirmed_at, "last_step": 0}
    connection.execute(insert(authenticator_apps).values(values))
    return True


def _use_step(connection: Connection, user_id: str, secret: str, code: str, now: int) -> bool:
    """RFC 6238 section 5.2: a code is taken once; of several who send it at once, one wins."""
    step = _step_of(secret, code, now)
    if step is None:
        return False
    fresh = (apps.user_id == user_id) & (apps.last_step < step)
    return bool(connection.execute(update(authenticator_apps).where(fresh).values(last_step=step)).rowcount)


def _step_of(secret: str, code: str, now: int) -> int | None:
    """The step whose code this is."""
    typed = code.replace(" ", "")
    if not CODE.fullmatch(typed):
        return None
    totp, current = pyotp.TOTP(secret), now // STEP_MICROS
    # All are compared, whichever fits: the time it takes says nothing.
    fitting = [step for step in (current + by for by in WINDOW) if hmac.compare_digest(totp.generate_otp(step), typed)]
    return fitting[0] if fitting else None


def _purpose(user_id: str) -> str:
    return f"authenticator app of {user_id}"


def _pending(user_id: str, session: str) -> str:
    return f"{_purpose(user_id)}, to be confirmed in {session}"
