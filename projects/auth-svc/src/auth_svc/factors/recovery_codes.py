"""Recovery codes: ten ways in for somebody who has lost their phone, shown once, each good once."""

import base64
import secrets
from collections.abc import Iterable

from sqlalchemy import delete, insert, select, update

from auth_svc import audit
from auth_svc.audit import Actor
from auth_svc.factors import held
from auth_svc.mail import texts
from auth_svc.opaque import digest
from auth_svc.people import accounts
from auth_svc.people.accounts import Account
from auth_svc.tables import recovery_codes
from lib_auth.events import UserRecoveryCodeUsed, UserRecoveryCodeUsedData
from lib_events.database import Connection
from lib_events.event import Event

COUNT = 10
CODE_BYTES = 10  # 80 bits: nobody finds one that a digest belongs to
GROUP = 4


def make() -> list[str]:
    """Return a fresh set, as people read and type it."""
    return [_grouped(base64.b32encode(secrets.token_bytes(CODE_BYTES)).decode()) for _ in range(COUNT)]


def replace(connection: Connection, account: Account, codes: list[str], actor: Actor) -> None:
    """Keep the digests of a new set; the old set is worth nothing."""
    connection.execute(delete(recovery_codes).where(recovery_codes.c.user_id == account.id))
    _keep(connection, account, map(_digest, codes), actor)


def adopt(connection: Connection, account: Account, digests: Iterable[bytes], actor: Actor) -> bool:
    """Let the rest of a set count that was made elsewhere; False when there is a set, used up or not, or no rest."""
    own = select(recovery_codes.c.digest).where(recovery_codes.c.user_id == account.id).limit(1)
    if not (kept := set(digests)) or connection.scalar(own) is not None:
        return False
    _keep(connection, account, kept, actor)
    return True


def check(connection: Connection, account: Account, code: str, actor: Actor) -> bool:
    """Whether `code` is one that is left; it is used up then, and the person is told."""
    own = (recovery_codes.c.user_id == account.id) & (recovery_codes.c.digest == _digest(code))
    unused = own & recovery_codes.c.used_at.is_(None)
    if not connection.execute(update(recovery_codes).where(unused).values(used_at=actor.at)).rowcount:
        return False
    left = held.of_user(connection, account.id).recovery_codes
    payload = UserRecoveryCodeUsedData(user=account.id, username=account.username, by=account.id, left=left)
    connection.publish(Event.of(UserRecoveryCodeUsed, payload, source=connection.source, subject=account.id))
    # Whoever found a code must not use it unseen.
    accounts.write_to(connection, account, texts.recovery_code_used(account.username, left), actor.at)
    audit.record(connection, actor, "user.recovery-code-used", about=account.id, left=left)
    return True


def _keep(connection: Connection, account: Account, digests: Iterable[bytes], actor: Actor) -> None:
    rows = [{"user_id": account.id, "digest": each, "created_at": actor.at} for each in digests]
    connection.execute(insert(recovery_codes), rows)
    held.tell_added(connection, account, held.RECOVERY_CODES, actor)


def _digest(code: str) -> bytes:
    return digest("".join(filter(str.isalnum, code)).upper())


def _grouped(code: str) -> str:
    return "-".join(code[start : start + GROUP] for start in range(0, len(code), GROUP))
