"""Browser sessions: started by a sign-in, found by their cookie, ended once and told of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, bindparam, insert, select, update

from auth_svc import listed
from auth_svc.audit import Actor, record
from auth_svc.opaque import digest, new_id
from auth_svc.protocol.families import last_expiry, revoke_all_of_sessions
from auth_svc.proving import sign_ins
from auth_svc.proving.assurance import PASSWORD, acr_of
from auth_svc.tables import sessions
from lib_auth.events import SessionEnded, SessionEndedData, SessionStarted, SessionStartedData
from lib_events.database import Connection
from lib_events.event import EncodedEvent, Event
from lib_events.prepared import Prepared

LIFETIME_SECONDS = 12 * 3600  # unless `EVS_SESSION_MINUTES` says otherwise
LONGEST_USER_AGENT = 300
MOST_ALIVE = 200  # of one person: whoever has more could be put out in no single transaction
MICROS = 1_000_000
BY_ID = Prepared(select(sessions).where(sessions.c.id == bindparam("id")))
BY_COOKIE = Prepared(select(sessions).where(sessions.c.digest == bindparam("digest")))
# Writing a value it already has takes the row's lock on both databases.
TOUCH = Prepared(
    update(sessions)
    .where((sessions.c.id == bindparam("session")) & sessions.c.ended_at.is_(None))
    .values(ended_at=None)
)
START = Prepared(
    insert(sessions).inline(),
    columns=(
        *("id", "digest", "user_id", "authenticated_at", "started_at", "expires_at", "address", "user_agent"),
        *("last_seen_at", "methods"),
    ),
)

# A few, where there were more before there was a bound.
BEYOND = Prepared(
    select(sessions.c.id)
    .where(
        (sessions.c.user_id == bindparam("user"))
        & sessions.c.ended_at.is_(None)
        & (sessions.c.expires_at > bindparam("now"))
    )
    .order_by(sessions.c.expires_at.desc())
    .limit(5)
    .offset(MOST_ALIVE - 1)
)


@dataclass(frozen=True, slots=True)
class Session:
    """One sign-in with one browser."""

    id: str
    user_id: str
    authenticated_at: int  # or `UNTOLD`; the person may have proven who they are long before, at another provider
    started_at: int  # when the browser was signed in
    expires_at: int
    ended_at: int | None
    address: str | None
    user_agent: str | None
    last_seen_at: int | None = None
    methods: tuple[str, ...] = (PASSWORD,)

    def is_alive(self, now: int) -> bool:
        """Whether the browser is still signed in."""
        return self.ended_at is None and now < self.expires_at


def start(
    connection: Connection,
    cookie: str,
    user_id: str,
    actor: Actor,
    user_agent: str,
    *,
    methods: tuple[str, ...] = (PASSWORD,),
    authenticated_at: int | None = None,
    lifetime_seconds: int = LIFETIME_SECONDS,
) -> Session:
    """Sign a browser in; `cookie` is known to nobody else. It was proven just now unless `authenticated_at` says it.

    Where a person is signed in too often already, the sign-in of longest ago ends.
    """
    now = actor.at
    for row in connection.rows(BEYOND, user=user_id, now=now):
        end(connection, row.id, "newer ones took its place", now)
        record(connection, actor, "session.ended", about=row.id, user=user_id)
    proven_at = now if authenticated_at is None else authenticated_at
    session = Session(
        id=new_id(),
        user_id=user_id,
        authenticated_at=proven_at,
        started_at=now,
        expires_at=now + lifetime_seconds * MICROS,
        ended_at=None,
        address=actor.address,
        user_agent=user_agent[:LONGEST_USER_AGENT],
        methods=methods,
    )
    connection.change(
        START,
        id=session.id,
        digest=digest(cookie),
        user_id=user_id,
        authenticated_at=proven_at,
        started_at=now,
        expires_at=session.expires_at,
        address=actor.address,
        user_agent=session.user_agent,
        last_seen_at=now,
        methods=listed.to_text(methods),
    )
    payload = SessionStartedData(session=session.id, user=user_id)
    connection.publish(Event.of(SessionStarted, payload, source=connection.source, subject=session.id))
    return session


def find_by_cookie(connection: Connection, cookie: str) -> Session | None:
    """Return the session of a cookie, alive or not."""
    return _one(connection.row(BY_COOKIE, digest=digest(cookie)))


def find(connection: Connection, session_id: str) -> Session | None:
    """Return the session with that id."""
    return _one(connection.row(BY_ID, id=session_id))


def touch(connection: Connection, session_id: str) -> bool:
    """Lock the session for the rest of the transaction; returns whether it is alive."""
    return bool(connection.change(TOUCH, session=session_id))


def strengthen(connection: Connection, session_id: str, cookie: str, methods: tuple[str, ...], actor: Actor) -> bool:
    """Say that one more factor was proven; the cookie from before is worth nothing. False: the session has ended."""
    alive = (sessions.c.id == session_id) & sessions.c.ended_at.is_(None)
    # `authenticated_at` stays: the first factor was proven then.
    values = {"digest": digest(cookie), "methods": listed.to_text(methods)}
    if not connection.execute(update(sessions).where(alive).values(values)).rowcount:
        return False
    record(connection, actor, "session.strengthened", about=session_id, acr=acr_of(methods))
    return True


def alive_of_user(connection: Connection, user_id: str, now: int) -> Sequence[Session]:
    """Return where a person is signed in, newest first."""
    alive = (sessions.c.user_id == user_id) & sessions.c.ended_at.is_(None) & (sessions.c.expires_at > now)
    query = select(sessions).where(alive).order_by(sessions.c.expires_at.desc())
    return [_session(row) for row in connection.execute(query)]


def end(connection: Connection, session_id: str, reason: str, now: int) -> bool:
    """End a session and every token that depends on it; returns whether it was alive."""
    alive = (sessions.c.id == session_id) & sessions.c.ended_at.is_(None)
    ended = connection.execute(update(sessions).where(alive).values(ended_at=now)).rowcount
    if not ended:
        return False
    session = find(connection, session_id)
    assert session is not None  # noqa: S101 - it was just updated
    revoke_all_of_sessions(connection, sessions.c.id == session_id, reason, now)
    payload = SessionEndedData(session=session_id, user=session.user_id, reason=reason, expires_at=last_expiry(now))
    connection.publish(Event.of(SessionEnded, payload, source=connection.source, subject=session_id))
    return True


def end_all_of_user(connection: Connection, user_id: str, reason: str, now: int, *, keep: str | None = None) -> None:
    """End every session of a person, but for `keep`, and every sign-in that is under way."""
    sign_ins.end_all_of_user(connection, user_id)
    end_all(connection, user_id, reason, now, keep=keep)


def end_all(connection: Connection, user_id: str, reason: str, now: int, *, keep: str | None) -> None:
    """End every session of a person, but for `keep`."""
    end_those(connection, (sessions.c.user_id == user_id) & sessions.c.id.is_distinct_from(keep), reason, now)


def end_those(connection: Connection, which: ColumnElement[bool], reason: str, now: int) -> None:
    """End sessions in a few statements: there may be thousands."""
    alive = which & sessions.c.ended_at.is_(None) & (sessions.c.expires_at > now)
    ending = update(sessions).where(alive).values(ended_at=now).returning(sessions.c.id, sessions.c.user_id)
    ended = connection.execute(ending).all()
    revoke_all_of_sessions(connection, which & (sessions.c.ended_at == now), reason, now)
    until = last_expiry(now)
    for row in ended:
        payload = SessionEndedData(session=row.id, user=row.user_id, reason=reason, expires_at=until)
        connection.publish(EncodedEvent.of(SessionEnded, payload, source=connection.source, subject=row.id))


def _one(row: Row[Any] | None) -> Session | None:
    return None if row is None else _session(row)


def started_at(row: Row[Any]) -> int:
    """When a session began; those of earlier releases all had the same time."""
    return row.expires_at - LIFETIME_SECONDS * MICROS if row.started_at is None else int(row.started_at)


def _session(row: Row[Any]) -> Session:
    return Session(
        id=row.id,
        user_id=row.user_id,
        authenticated_at=row.authenticated_at,
        started_at=started_at(row),
        expires_at=row.expires_at,
        ended_at=row.ended_at,
        address=row.address,
        user_agent=row.user_agent,
        last_seen_at=row.last_seen_at,
        methods=listed.from_text(row.methods),
    )
