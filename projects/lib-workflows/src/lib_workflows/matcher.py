"""Reads the event log for whoever waits: starts the runs events trigger, hands events to the runs that wait."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import delete, func, insert, select, union, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from lib_events.clock import SystemClock
from lib_events.database import Connection, Database
from lib_events.event_log import PLACED_TOPIC, head
from lib_events.lifecycle import Loop
from lib_events.tables import events, subscription_cursors
from lib_workflows.event_waits import BATCH, MATCHER, events_of_types, lock_matcher, match_event
from lib_workflows.tables import event_waits, triggers
from lib_workflows.workflow import Workflow

POLL_SECONDS = 5.0


class Matcher(Loop):
    """Follows the log; any number of processes may run one, the cursor's lock lets one at a time work."""

    def __init__(self, database: Database) -> None:
        super().__init__(name="workflow matcher")
        self._database = database

    async def run(self) -> None:
        """Match whatever is placed, until stopped."""
        unsubscribe = self._database.on_notify(PLACED_TOPIC, self.wake)
        try:
            while True:
                while await self._database.read(anything_to_match):
                    await self._database.transact(match_batch)
                await self.pause(POLL_SECONDS)
        finally:
            unsubscribe()


def declare_triggers(connection: Connection, workflows: Iterable[Workflow[*tuple[Any, ...], Any]]) -> None:
    """Make the triggers in the database those of `workflows`; a new one begins with the next event."""
    _make_cursor(connection)
    lock_matcher(connection)
    position = head(connection).position
    for workflow in workflows:
        wanted = {trigger.name for trigger in workflow.on}
        mine = triggers.c.workflow == workflow.name
        known = set(connection.scalars(select(triggers.c.event_type).where(mine)))
        connection.execute(delete(triggers).where(mine, triggers.c.event_type.not_in(wanted)))
        settings = {"version": workflow.version, "queue": workflow.queue, "takes_input": workflow.takes_input}
        connection.execute(update(triggers).where(mine).values(**settings))
        for name in wanted - known:
            row = {"event_type": name, "workflow": workflow.name, "after_position": position}
            connection.execute(insert(triggers).values(**row, **settings))


def _make_cursor(connection: Connection) -> None:
    dialect_insert = sqlite_insert if connection.dialect_name == "sqlite" else postgresql_insert
    row = {"durable": MATCHER, "position": head(connection).position, "updated_at": SystemClock().micros()}
    connection.execute(dialect_insert(subscription_cursors).values(**row).on_conflict_do_nothing())


def _wanted_types(connection: Connection) -> list[str]:
    waited = select(event_waits.c.type).distinct()
    return list(connection.scalars(union(waited, select(triggers.c.event_type))))


def anything_to_match(connection: Connection) -> bool:
    """Whether an event that somebody wants came after the cursor: the cheap question asked first."""
    types = _wanted_types(connection)
    cursor = select(subscription_cursors.c.position).where(subscription_cursors.c.durable == MATCHER)
    after = connection.scalar(cursor)
    newest = select(func.max(events.c.last_position)).where(events.c.type.in_(types), events.c.last_position > after)
    return bool(types) and connection.scalar(newest) is not None


def match_batch(connection: Connection) -> None:
    """Match the next events and move the cursor behind them: one transaction."""
    after = lock_matcher(connection)
    reached = head(connection).position
    found = list(events_of_types(connection, _wanted_types(connection), after, reached, BATCH))
    for position, event in found:
        match_event(connection, event, position)
    if len(found) == BATCH:
        reached = found[-1][0]
    connection.execute(
        update(subscription_cursors)
        .where(subscription_cursors.c.durable == MATCHER)
        .values(position=reached, updated_at=SystemClock().micros())
    )
