"""Tells other services what the members of a large group, or the holders of a role, may do now, a few at a time.

What a group or a role gives or takes counts at once, whatever its size. An event for each of thousands would make one
transaction too long, so who is to be told of is kept in rows, with the change itself, and told from those: whoever is
stopped in between goes on afterwards. What is told is what is so then.
"""

import logging
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Select, delete, literal, select

from auth_svc.audit import Actor
from auth_svc.clients import clients
from auth_svc.people import accounts
from auth_svc.rights import roles
from auth_svc.rights.roles import Role, Roles
from auth_svc.tables import group_members, roles_to_tell, users
from lib_events.clock import Clock
from lib_events.database import Connection, Database, DatabaseError, insert_into
from lib_events.lifecycle import Loop

logger = logging.getLogger(__name__)

TOPIC = "roles-to-tell"
BATCH = 200
LOOK_SECONDS = 30.0


class RoleNews(Loop):
    """Tells what waits, whenever somebody has left something and now and then."""

    def __init__(self, database: Database, clock: Clock) -> None:
        super().__init__(name="role news")
        self._database = database
        self._clock = clock

    async def run(self) -> None:
        """Tell until nothing is left, then pause."""
        unsubscribe = self._database.on_notify(TOPIC, self.wake)
        try:
            while True:
                try:
                    while await self._database.transact(tell, self._clock.micros()) == BATCH:
                        pass
                except DatabaseError as error:
                    logger.warning("what people may do cannot be told: %s", error)
                await self.pause(LOOK_SECONDS)
        finally:
            unsubscribe()


def leave(connection: Connection, group_id: str, actor: Actor) -> None:
    """Leave all members of a group to be told of."""
    members = select(group_members.c.user_id, literal(actor.who)).where(group_members.c.group_id == group_id)
    _leave(connection, members)


def change_role(connection: Connection, name: str, changes: Mapping[str, Any], actor: Actor) -> Role:
    """Set fields of a role; whoever holds it may do something else when it includes others. Raises as `roles.change`.

    Tokens say it anew by themselves, but who acts on without one (a webhook, a schedule) has to hear of it.
    """
    changed = roles.change(connection, name, changes, actor)
    if "includes" in changes:
        holders = select(users.c.id, literal(actor.who)).where(users.c.deleted_at.is_(None))
        _leave(connection, holders.where(roles.holds(connection, name)))
        clients.tell_roles(connection, sorted(Roles(roles.load(connection)).including(name)), actor)
    return changed


def _leave(connection: Connection, people: Select[Any]) -> None:
    statement = insert_into(connection, roles_to_tell).from_select(["user_id", "by"], people)
    newer = {"by": statement.excluded["by"]}
    connection.execute(statement.on_conflict_do_update(index_elements=["user_id"], set_=newer))
    connection.notify(TOPIC)


def tell(connection: Connection, now: int) -> int:
    """Transaction function: tell of up to `BATCH` people; returns how many waited."""
    query = select(roles_to_tell).order_by(roles_to_tell.c.user_id).limit(BATCH)
    waiting = {row.user_id: row.by for row in connection.execute(query.with_for_update(skip_locked=True))}
    known = Roles(roles.load(connection))  # who changes one now waits for the rows above, and leaves them again
    for account in accounts.lock_all(connection, waiting):
        accounts.tell_roles(connection, account, known, Actor(now, waiting[account.id]))
    connection.execute(delete(roles_to_tell).where(roles_to_tell.c.user_id.in_(waiting)))
    return len(waiting)
