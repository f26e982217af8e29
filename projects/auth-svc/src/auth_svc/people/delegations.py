"""Delegations: what a person lets a client do for them while they are away, until when, and what for.

A delegation is a token family without secrets: whatever ends a person's families ends it, too, and each of its access
tokens is refused with it. The client asks for tokens by the delegation's id, which is worth nothing to anybody who
cannot prove to be that client.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, bindparam, insert, select, update

from auth_svc.audit import Actor, record
from auth_svc.people import consents
from auth_svc.protocol import families
from auth_svc.protocol.families import MICROS, Family
from auth_svc.rights.changes import NotThere
from auth_svc.tables import clients, delegations
from auth_svc.tables import families as family_table
from lib_auth.events import DelegationData, DelegationUsed, GrantDelegated
from lib_events.database import Connection
from lib_events.event import Event, EventType
from lib_events.prepared import Prepared

MOST_ALIVE = 1_000  # of one person with one client: whoever has more could be put out in no single transaction
FULL = Prepared(
    select(delegations.c.id)
    .join(family_table, family_table.c.id == delegations.c.family_id)
    .where(
        (family_table.c.user_id == bindparam("user"))
        & (family_table.c.client_id == bindparam("client"))
        & family_table.c.revoked_at.is_(None)
    )
    .limit(1)
    .offset(MOST_ALIVE - 1)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegation:
    """One delegation; times are microseconds since the epoch."""

    id: str
    family: Family
    purpose: str  # what the person reads about it
    expires_at: int
    used_at: int | None = None
    client_name: str = ""
    ended_why: str | None = None

    def is_alive(self, now: int) -> bool:
        """Whether tokens may still come of it."""
        return self.family.revoked_at is None and now < self.expires_at


def are_too_many(connection: Connection, user_id: str, client_id: str) -> bool:
    """Whether a person lets a client do so much for them that one more must wait until something of it ends."""
    return connection.row(FULL, user=user_id, client=client_id) is not None


def begin(connection: Connection, delegation: Delegation, now: int) -> bool:
    """Keep a new delegation and tell of it; returns False when the person has just taken back what it needs."""
    family = delegation.family
    consent = consents.keep(connection, family.user_id, family.client_id)
    if consent is None or not consent.covers_away(family.scopes, family.resources):
        return False
    families.start(connection, family)
    connection.execute(
        insert(delegations).values(
            id=delegation.id,
            family_id=delegation.family.id,
            purpose=delegation.purpose,
            expires_at=delegation.expires_at,
        )
    )
    record(
        connection,
        Actor(now, family.user_id),
        "grant.delegated",
        about=family.user_id,
        delegation=delegation.id,
        client=family.client_id,
        scope=family.scope,
        resources=list(family.resources),
        purpose=delegation.purpose,
    )
    _tell(connection, GrantDelegated, delegation)
    return True


def use(connection: Connection, delegation: Delegation, now: int) -> None:
    """Remember and tell that the first token came of it."""
    unused = (delegations.c.id == delegation.id) & delegations.c.used_at.is_(None)
    if connection.execute(update(delegations).where(unused).values(used_at=now)).rowcount:
        _tell(connection, DelegationUsed, delegation)


def find(connection: Connection, delegation_id: str) -> Delegation | None:
    """Return the delegation with that id, over or not."""
    row = connection.execute(_all().where(delegations.c.id == delegation_id)).one_or_none()
    return None if row is None else _read(row)


def alive_of_user(connection: Connection, user_id: str, now: int) -> Sequence[Delegation]:
    """Return what a person lets clients do for them, newest first."""
    alive = family_table.c.revoked_at.is_(None) & (delegations.c.expires_at > now)
    query = _all().where(alive, family_table.c.user_id == user_id).order_by(family_table.c.created_at.desc())
    return [_read(row) for row in connection.execute(query)]


def withdraw(connection: Connection, user_id: str, delegation_id: str, why: str, actor: Actor) -> None:
    """End one delegation of a person; raises `NotThere`."""
    found = find(connection, delegation_id)
    if found is None or found.family.user_id != user_id or not found.is_alive(actor.at):
        raise NotThere("delegation", delegation_id)
    families.revoke(connection, found.family.id, why, actor.at)


def _all() -> Select[Any]:
    return (
        select(delegations, clients.c.name.label("client_name"), *_family_columns())
        .join(family_table, family_table.c.id == delegations.c.family_id)
        .join(clients, clients.c.id == family_table.c.client_id)
    )


def _family_columns() -> list[Any]:
    return [column.label(f"of_family_{column.name}") for column in family_table.columns]


def _read(row: Row[Any]) -> Delegation:
    values = {column.name: getattr(row, f"of_family_{column.name}") for column in family_table.columns}
    return Delegation(
        id=row.id,
        family=families.read_family(values),
        purpose=row.purpose,
        expires_at=row.expires_at,
        used_at=row.used_at,
        client_name=row.client_name,
        ended_why=row.of_family_revoked_why,
    )


def _tell(connection: Connection, event_type: EventType[DelegationData], delegation: Delegation) -> None:
    family = delegation.family
    payload = DelegationData(
        delegation=delegation.id,
        user=family.user_id,
        client=family.client_id,
        scopes=sorted(family.scopes),
        resources=list(family.resources),
        purpose=delegation.purpose,
        expires_at=delegation.expires_at // MICROS,
    )
    connection.publish(Event.of(event_type, payload, source=connection.source, subject=family.user_id))
