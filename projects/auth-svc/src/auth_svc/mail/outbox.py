"""The mails that have not left yet: put by the transaction that causes them, claimed by one sender at a time."""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, insert, select, update

from auth_svc.audit import Actor, record
from auth_svc.mail.texts import Letter
from auth_svc.opaque import new_id
from auth_svc.tables import mails
from lib_events.database import Connection

MAIL_TOPIC = "mail"  # something is to be sent
MICROS = 1_000_000
DAY_SECONDS = 24 * 3600
# A mail about something that happened is still worth reading after three days, not after four.
KEEP_SECONDS = 3 * DAY_SECONDS
ATTEMPT_SECONDS = 600  # RFC 5321 section 4.5.3.2.6: who gives up while a server takes a mail sends it again
CLAIM_SECONDS = ATTEMPT_SECONDS + 60  # longer than that: nobody claims what another is sending
FIRST_RETRY_SECONDS = 60
LAST_RETRY_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class WaitingMail:
    """A mail that is to be sent now."""

    id: str
    kind: str
    user_id: str | None
    recipient: str = field(repr=False)
    subject: str
    body: str = field(repr=False)
    expires_at: int
    attempts: int
    created_at: int


def put(
    connection: Connection, letter: Letter, *, to: str, user_id: str | None, now: int, expires_at: int | None = None
) -> None:
    """Let a letter leave once this transaction is on disk; after `expires_at` nobody wants it."""
    connection.notify(MAIL_TOPIC)
    connection.execute(
        insert(mails).values(
            id=new_id(),
            kind=letter.kind,
            user_id=user_id,
            recipient=to,
            subject=letter.subject,
            body=letter.body,
            created_at=now,
            expires_at=expires_at or now + KEEP_SECONDS * MICROS,
            attempts=0,
            next_attempt_at=now,
        )
    )


def is_due(connection: Connection, now: int) -> bool:
    """Whether a mail is to be sent now."""
    return connection.scalar(select(mails.c.id).where(_due(now)).limit(1)) is not None


def claim(connection: Connection, now: int) -> WaitingMail | None:
    """Take the mail that has waited longest; where nobody says what became of it, it comes again."""
    due = select(mails).where(_due(now)).order_by(mails.c.next_attempt_at).limit(1)
    row = connection.execute(due.with_for_update(skip_locked=True)).one_or_none()
    if row is None:
        return None
    _put_off(connection, row.id, now + CLAIM_SECONDS * MICROS)
    return _waiting(row)


def postpone(connection: Connection, mail: WaitingMail, now: int) -> None:
    """Let a mail that was not taken come again, later each time."""
    pause = min(FIRST_RETRY_SECONDS * 2 ** (mail.attempts - 1), LAST_RETRY_SECONDS)
    _put_off(connection, mail.id, now + pause * MICROS, attempts=mail.attempts)


def forget(connection: Connection, mail_id: str) -> None:
    """Delete a mail that has left, and its secret with it."""
    connection.execute(delete(mails).where(mails.c.id == mail_id))


def give_up(connection: Connection, mail: WaitingMail, why: str, now: int) -> None:
    """Delete a mail that nobody takes, and say so."""
    forget(connection, mail.id)
    record(connection, Actor(now), "mail.given-up", about=mail.user_id, kind=mail.kind, why=why)


def _due(now: int) -> ColumnElement[bool]:
    """What has to wait for longer than anything has was put off by a clock that was ahead."""
    return (mails.c.next_attempt_at <= now) | (mails.c.next_attempt_at > now + LAST_RETRY_SECONDS * MICROS)


def _put_off(connection: Connection, mail_id: str, until: int, **values: int) -> None:
    connection.execute(update(mails).where(mails.c.id == mail_id).values(next_attempt_at=until, **values))


def _waiting(row: Row[Any]) -> WaitingMail:
    return WaitingMail(
        id=row.id,
        kind=row.kind,
        user_id=row.user_id,
        recipient=row.recipient,
        subject=row.subject,
        body=row.body,
        expires_at=row.expires_at,
        attempts=row.attempts + 1,
        created_at=row.created_at,
    )
