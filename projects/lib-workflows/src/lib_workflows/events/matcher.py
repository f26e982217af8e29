"""Reads the event log for whoever waits: starts the runs events trigger, hands events to the runs that wait."""

from collections.abc import Iterable
from enum import Enum

from sqlalchemy import delete, insert, select, text, update

from lib_events.clock import Clock, SystemClock
from lib_events.database import Connection, Database, insert_into
from lib_events.event_log import PLACED_TOPIC, committed_position, head
from lib_events.lifecycle import Loop
from lib_events.tables import subscription_cursors
from lib_workflows.authoring.workflow import AnyWorkflow
from lib_workflows.events.matching import match_events, wanted
from lib_workflows.events.waits import BATCH, MATCHER, WAITED_TYPES, WAITS_TOPIC, events_of_types, lock_matcher
from lib_workflows.tables import triggers

POLL_SECONDS = 5.0
LOOK = text(f"""
    WITH RECURSIVE {WAITED_TYPES}
    SELECT EXISTS (SELECT 1 FROM triggers) AS triggered, EXISTS (SELECT 1 FROM event_waits) AS waited, EXISTS (
        SELECT 1 FROM events
        WHERE type IN (SELECT event_type FROM triggers UNION SELECT type FROM waited)
            AND last_position > (SELECT position FROM subscription_cursors WHERE durable = :durable)
    ) AS came, (SELECT placed_position FROM event_log_state) - (
        SELECT position FROM subscription_cursors WHERE durable = :durable
    ) AS behind
""")  # noqa: S608 - our own words
SKIP_LIMIT = 50_000  # positions nobody waits for, after which the cursor moves anyway: it holds the log's pruning back


class Matcher(Loop):
    """Follows the log; any number of processes may run one, the cursor's lock lets one at a time work."""

    def __init__(self, database: Database, clock: Clock) -> None:
        super().__init__(name="workflow matcher")
        self._database = database
        self._clock = clock
        self._work = Work.NOTHING_CAME

    async def run(self) -> None:
        """Match whatever is placed, until stopped."""
        database = self._database
        unsubscribe = [
            database.on_notify(PLACED_TOPIC, self._placed),
            database.on_notify(WAITS_TOPIC, self.wake),
        ]
        try:
            while True:
                self._work = await database.read(what_to_match)
                while self._work is Work.MATCHES:
                    await database.transact(match_batch, self._clock.micros())
                    self._work = await database.read(what_to_match)
                await self.pause(POLL_SECONDS)
        finally:
            for stop in unsubscribe:
                stop()

    def _placed(self) -> None:
        # While nobody waits for anything, commits are none of our business: a new wait will wake us.
        if self._work is not Work.NOBODY_WAITS:
            self.wake()


class Work(Enum):
    """What there is to do for the matcher."""

    NOBODY_WAITS = 0
    NOTHING_CAME = 1
    MATCHES = 2


def hold_matcher(connection: Connection) -> None:
    """Let nothing be matched, and nobody else change what is, while this transaction lasts."""
    row = {"durable": MATCHER, "position": head(connection).position, "updated_at": SystemClock().micros()}
    connection.execute(insert_into(connection, subscription_cursors).values(**row).on_conflict_do_nothing())
    lock_matcher(connection)


def declare_triggers(connection: Connection, workflows: Iterable[AnyWorkflow]) -> None:
    """Make the triggers in the database those of `workflows`; a new one begins with the next event."""
    hold_matcher(connection)
    connection.notify(WAITS_TOPIC)
    position = committed_position(connection)
    for workflow in workflows:
        wanted = {trigger.name for trigger in workflow.on}
        mine = triggers.c.workflow == workflow.name
        known = set(connection.scalars(select(triggers.c.event_type).where(mine)))
        connection.execute(delete(triggers).where(mine, triggers.c.event_type.not_in(wanted)))
        settings = {"version": workflow.version, "queue": workflow.queue, "takes_input": workflow.takes_input}
        settings["queue_key"] = workflow.queue_key
        connection.execute(update(triggers).where(mine).values(**settings))
        for name in wanted - known:
            row = {"event_type": name, "workflow": workflow.name, "after_position": position}
            connection.execute(insert(triggers).values(**row, **settings))


def what_to_match(connection: Connection) -> Work:
    """Whether there is something to do after the cursor: the cheap question asked first."""
    found = connection.execute(LOOK, {"durable": MATCHER}).one()
    if found.came or found.behind > SKIP_LIMIT:
        return Work.MATCHES
    return Work.NOTHING_CAME if found.triggered or found.waited else Work.NOBODY_WAITS


def match_batch(connection: Connection, now: int) -> None:
    """Match the next events at `now` and move the cursor behind them: one transaction."""
    after = lock_matcher(connection)
    reached = head(connection).position
    what = wanted(connection)
    found = list(events_of_types(connection, what.types, after, reached, BATCH))
    if found and not match_events(connection, found, what, now):
        return  # there is more to do before the cursor may move
    if len(found) == BATCH:
        reached = found[-1][0]
    connection.execute(
        update(subscription_cursors)
        .where(subscription_cursors.c.durable == MATCHER)
        .values(position=reached, updated_at=SystemClock().micros())
    )
