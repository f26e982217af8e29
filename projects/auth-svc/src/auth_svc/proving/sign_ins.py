"""Sign-ins under way: what was proven so far, kept here and never in a form, until the second factor is, too."""

from dataclasses import dataclass, field

from sqlalchemy import delete, insert, select, update

from auth_svc import listed
from auth_svc.opaque import digest
from auth_svc.proving import guesses
from auth_svc.tables import sign_ins
from lib_events.database import Connection

LIFETIME_SECONDS = 300
MAX_ATTEMPTS = 5
MICROS = 1_000_000


@dataclass(frozen=True, slots=True)
class SignIn:
    """A person who has proven something and has to prove more."""

    digest: bytes = field(repr=False)
    user_id: str
    methods: tuple[str, ...]
    way_on: str
    session_id: str | None = None  # the session that is to become stronger
    wanted: str | None = None  # the level that is asked for
    attempts: int = 0


def begin(connection: Connection, sign_in: SignIn, now: int) -> None:
    """Keep a sign-in for a few minutes, known to its browser alone; of a session one at a time."""
    if sign_in.session_id is not None:
        connection.execute(delete(sign_ins).where(sign_ins.c.session_id == sign_in.session_id))
    connection.execute(
        insert(sign_ins).values(
            digest=sign_in.digest,
            user_id=sign_in.user_id,
            methods=listed.to_text(sign_in.methods),
            way_on=sign_in.way_on,
            session_id=sign_in.session_id,
            wanted=sign_in.wanted,
            attempts=0,
            expires_at=now + LIFETIME_SECONDS * MICROS,
        )
    )


def find(connection: Connection, cookie: str, now: int) -> SignIn | None:
    """Return the sign-in of a cookie while it can still succeed."""
    alive = (sign_ins.c.expires_at > now) & (sign_ins.c.attempts < MAX_ATTEMPTS)
    row = connection.execute(select(sign_ins).where((sign_ins.c.digest == digest(cookie)) & alive)).one_or_none()
    if row is None:
        return None
    methods = listed.from_text(row.methods)
    return SignIn(row.digest, row.user_id, methods, row.way_on, row.session_id, row.wanted, row.attempts)


def count_attempt(connection: Connection, sign_in: SignIn) -> bool:
    """Count an attempt before it is looked at; False when there were too many or the sign-in is over."""
    same = (sign_ins.c.digest == sign_in.digest) & (sign_ins.c.attempts < MAX_ATTEMPTS)
    counted = update(sign_ins).where(same).values(attempts=sign_ins.c.attempts + 1)
    return bool(connection.execute(counted).rowcount)


def end(connection: Connection, sign_in: SignIn) -> None:
    """End a sign-in because it succeeded; of several who try at once, `count_attempt` lets the first through."""
    connection.execute(delete(sign_ins).where(sign_ins.c.digest == sign_in.digest))
    guesses.forget(connection, sign_in.user_id)


def end_all_of_user(connection: Connection, user_id: str) -> None:
    """End what a person has under way: what they have proven is no longer so."""
    connection.execute(delete(sign_ins).where(sign_ins.c.user_id == user_id))
