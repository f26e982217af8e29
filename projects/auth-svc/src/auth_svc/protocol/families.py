"""Token families: what one person allowed one client, and all that came from it; they end as one."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, bindparam, delete, exists, insert, select, update

from auth_svc import listed
from auth_svc.audit import Actor, record_all
from auth_svc.opaque import new_id
from auth_svc.tables import codes, delegations, families, refresh_tokens, sessions
from lib_auth.events import DelegationWithdrawn, DelegationWithdrawnData, TokenRevoked, TokenRevokedData
from lib_events.database import Connection
from lib_events.event import EncodedEvent, Event
from lib_events.prepared import Prepared

# No client's access tokens live longer, so a revocation may be forgotten after this.
LONGEST_ACCESS_SECONDS = 3600
MICROS = 1_000_000
MOST_ALIVE = 200  # of one person with one client: whoever has more could be put out in no single transaction
BY_ID = Prepared(select(families).where(families.c.id == bindparam("id")))
# Writing a value it already has takes the row's lock on both databases.
TOUCH = Prepared(
    update(families)
    .where((families.c.id == bindparam("family")) & families.c.revoked_at.is_(None))
    .values(revoked_at=None)
)
START = Prepared(
    insert(families).inline(),
    columns=(
        *("id", "user_id", "client_id", "session_id", "scope", "resources", "authenticated_at", "created_at"),
        *("started_in", "key_thumbprint", "methods"),
    ),
)


# A few, where there were more before there was a bound. Delegations have one of their own.
BEYOND = Prepared(
    select(families.c.id)
    .where(
        (families.c.user_id == bindparam("user"))
        & (families.c.client_id == bindparam("client"))
        & families.c.revoked_at.is_(None)
        & ~exists().where(delegations.c.family_id == families.c.id)
    )
    .order_by(families.c.created_at.desc())
    .limit(5)
    .offset(MOST_ALIVE - 1)
)


@dataclass(frozen=True, slots=True)
class Family:
    """One authorisation."""

    id: str
    user_id: str
    client_id: str
    session_id: str | None
    scope: str
    resources: tuple[str, ...]
    authenticated_at: int
    created_at: int
    revoked_at: int | None = None
    started_in: str | None = None  # the session it was allowed in
    key_thumbprint: str | None = None
    methods: tuple[str, ...] = ()  # how the person had proven who they are

    @property
    def scopes(self) -> frozenset[str]:
        """What was allowed."""
        return frozenset(self.scope.split())


def last_expiry(now: int) -> int:
    """The second by which every access token issued until `now` has expired."""
    return now // MICROS + LONGEST_ACCESS_SECONDS + 1


def start(connection: Connection, family: Family) -> None:
    """Keep a new authorisation."""
    connection.change(
        START,
        id=family.id,
        user_id=family.user_id,
        client_id=family.client_id,
        session_id=family.session_id,
        scope=family.scope,
        resources=listed.to_text(family.resources),
        authenticated_at=family.authenticated_at,
        created_at=family.created_at,
        started_in=family.started_in,
        key_thumbprint=family.key_thumbprint,
        methods=listed.to_text(family.methods),
    )


def make_room(connection: Connection, family: Family) -> None:
    """End what the person allowed the same client longest ago, where there is too much of it for one more."""
    for row in connection.rows(BEYOND, user=family.user_id, client=family.client_id):
        revoke(connection, row.id, "newer ones took its place", family.created_at)


def opened(
    *,
    user_id: str,
    client_id: str,
    scope: str,
    resources: tuple[str, ...],
    session_id: str,
    authenticated_at: int,
    methods: tuple[str, ...],
    now: int,
) -> Family:
    """What a person allows now, in a session of theirs; with `offline_access` it outlives that session."""
    lasting = "offline_access" in scope.split()
    return Family(
        id=new_id(),
        user_id=user_id,
        client_id=client_id,
        session_id=None if lasting else session_id,
        scope=scope,
        resources=resources,
        authenticated_at=authenticated_at,
        created_at=now,
        started_in=session_id,
        methods=methods,
    )


def find(connection: Connection, family_id: str) -> Family | None:
    """Return the family with that id."""
    row = connection.row(BY_ID, id=family_id)
    return None if row is None else read_family(row._asdict())


def touch(connection: Connection, family_id: str) -> bool:
    """Lock the family for the rest of the transaction; returns whether it is alive."""
    return bool(connection.change(TOUCH, family=family_id))


def revoke(connection: Connection, family_id: str, why: str, now: int) -> None:
    """End one family, unless it has ended, and tell everybody who accepts its tokens."""
    revoke_all(connection, families.c.id == family_id, why, now)


def revoke_all_of_sessions(connection: Connection, ended: ColumnElement[bool], why: str, now: int) -> None:
    """End the families that depend on sessions; the event of each session's end speaks for them."""
    theirs = families.c.session_id.in_(select(sessions.c.id).where(ended)) & families.c.revoked_at.is_(None)
    connection.execute(update(families).where(theirs).values(revoked_at=now, revoked_why=why))


def revoke_all_of_user(
    connection: Connection, user_id: str, why: str, now: int, *, keep_session: str | None = None
) -> None:
    """End every family of a person, but for those of one session."""
    which = families.c.user_id == user_id
    if keep_session is not None:
        which &= families.c.session_id.is_distinct_from(keep_session)
    revoke_all(connection, which, why, now)


def revoke_all_of_client(connection: Connection, client_id: str, why: str, now: int) -> None:
    """End everything that people allowed a client."""
    revoke_all(connection, families.c.client_id == client_id, why, now)


def revoke_all(connection: Connection, which: ColumnElement[bool], why: str, now: int) -> bool:
    """End families and tell everybody who accepts their tokens; returns whether any was alive.

    In a few statements, however many they are: whoever has thousands must be put out in a moment, too.

    A delegation that is being given holds the family it comes from, which is then waited for; so it is looked again
    until there is nothing left that another could come of.
    """
    alive = update(families).where(which & families.c.revoked_at.is_(None))
    ending = alive.values(revoked_at=now, revoked_why=why).returning(families.c.id)
    ended: list[str] = []
    while found := connection.scalars(ending).all():
        ended += found
    record_all(connection, Actor(now), "tokens.revoked", ended, why=why)
    given = select(delegations.c.id, delegations.c.family_id, families.c.user_id, families.c.client_id).join(families)
    mine = {row.family_id: row for row in connection.execute(given.where(which & (families.c.revoked_at == now)))}
    source, expires_at = connection.source, last_expiry(now)
    for family_id in ended:
        if (row := mine.get(family_id)) is not None:
            withdrawn = DelegationWithdrawnData(delegation=row.id, user=row.user_id, client=row.client_id, why=why)
            connection.publish(EncodedEvent.of(DelegationWithdrawn, withdrawn, source=source, subject=row.user_id))
        payload = TokenRevokedData(family=family_id, expires_at=expires_at)
        connection.publish(EncodedEvent.of(TokenRevoked, payload, source=source, subject=family_id))
    return bool(ended)


def remove_all_of_client(connection: Connection, client_id: str) -> None:
    """Delete a client's families, and the secrets that belong to them."""
    mine = select(families.c.id).where(families.c.client_id == client_id)
    for table in (codes, refresh_tokens, delegations):
        connection.execute(delete(table).where(table.c.family_id.in_(mine)))
    connection.execute(delete(families).where(families.c.client_id == client_id))


def bind_key(connection: Connection, family_id: str, thumbprint: str) -> None:
    """Bind the family's refresh tokens to a key, the first one that is shown (RFC 9449 section 5)."""
    unbound = (families.c.id == family_id) & families.c.key_thumbprint.is_(None)
    connection.execute(update(families).where(unbound).values(key_thumbprint=thumbprint))


def revoke_access_tokens(
    connection: Connection, now: int, *, user: str | None = None, client: str | None = None, role: str | None = None
) -> None:
    """Refuse the access tokens that somebody holds now, or that say a role; refresh tokens bring up-to-date ones."""
    until = {"issued_until": now // MICROS, "expires_at": last_expiry(now)}
    payload = TokenRevokedData(user=user, client=client, role=role, **until)
    connection.publish(Event.of(TokenRevoked, payload, source=connection.source, subject=user or client or role))


def read_family(row: RowMapping | dict[str, Any]) -> Family:
    """Make a family of its columns."""
    return Family(
        id=row["id"],
        user_id=row["user_id"],
        client_id=row["client_id"],
        session_id=row["session_id"],
        scope=row["scope"],
        resources=listed.from_text(row["resources"]),
        authenticated_at=row["authenticated_at"],
        created_at=row["created_at"],
        revoked_at=row["revoked_at"],
        started_in=row["started_in"],
        key_thumbprint=row["key_thumbprint"],
        methods=listed.from_text(row["methods"]),
    )
