"""Reads the event log for whoever waits: starts the runs events trigger, hands events to the runs that wait.

What gathers is started when its time has come: a timer here, and the slow poll of every other matcher beneath it.
"""

from collections.abc import Iterable
from enum import Enum
from typing import Any, NamedTuple

from sqlalchemy import and_, delete, insert, select, text, update

from lib_events.clock import SystemClock
from lib_events.database import Connection, Database, insert_into
from lib_events.event_log import PLACED_TOPIC, committed_position, head
from lib_events.lifecycle import Loop
from lib_events.tables import subscription_cursors
from lib_workflows.authoring.workflow import AnyWorkflow
from lib_workflows.events.gathering import TAKES_NO_MORE, gather, start_due
from lib_workflows.events.matching import match_events, wanted
from lib_workflows.events.waits import MATCHER, WAITED_TYPES, WAITS_TOPIC, lock_matcher, next_of_types
from lib_workflows.tables import batches, triggers
from lib_workflows.timers import Timer, Timers

POLL_SECONDS = 5.0
BATCH_SETTINGS = ("batch_events", "batch_micros", "batch_key")
LOOK = text(f"""
    WITH RECURSIVE {WAITED_TYPES}
    SELECT EXISTS (SELECT 1 FROM triggers) AS triggered, EXISTS (SELECT 1 FROM event_waits) AS waited, EXISTS (
        SELECT 1 FROM events
        WHERE type IN (SELECT event_type FROM triggers UNION SELECT type FROM waited)
            AND last_position > (SELECT position FROM subscription_cursors WHERE durable = :durable)
    ) AS came, (SELECT placed_position FROM event_log_state) - (
        SELECT position FROM subscription_cursors WHERE durable = :durable
    ) AS behind, (SELECT min(due_at) FROM batches) AS due_at
""")  # noqa: S608 - our own words
SKIP_LIMIT = 50_000  # positions nobody waits for, after which the cursor moves anyway: it holds the log's pruning back


class Matcher(Loop):
    """Follows the log; any number of processes may run one, the cursor's lock lets one at a time work."""

    def __init__(self, database: Database, timers: Timers) -> None:
        super().__init__(name="workflow matcher")
        self._database = database
        self._timers = timers
        self._timer: Timer | None = None
        self._work = Work.NOTHING_CAME

    async def run(self) -> None:
        """Match whatever is placed, until stopped."""
        unsubscribe = [
            self._database.on_notify(PLACED_TOPIC, self._placed),
            self._database.on_notify(WAITS_TOPIC, self.wake),
        ]
        try:
            while True:
                await self._match()
                await self.pause(POLL_SECONDS)
        finally:
            for stop in unsubscribe:
                stop()
            self._arm(None)

    async def _match(self) -> None:
        """Match all there is, then wait for what gathers."""
        database, clock = self._database, self._timers.clock
        found = await database.read(what_to_match, clock.micros())
        while found.work is Work.MATCHES:
            await database.transact(match_next, clock.micros())
            found = await database.read(what_to_match, clock.micros())
        self._work = found.work
        self._arm(found.due_at)

    def _arm(self, at: int | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if at is None else self._timers.add(at, self.wake)

    def _placed(self) -> None:
        # While nobody waits for anything, commits are none of our business: a new wait will wake us.
        if self._work is not Work.NOBODY_WAITS:
            self.wake()


class Work(Enum):
    """What there is to do for the matcher."""

    NOBODY_WAITS = 0
    NOTHING_CAME = 1
    MATCHES = 2


class Look(NamedTuple):
    """What there is to do at some moment, and when what gathers is due."""

    work: Work
    due_at: int | None


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
        settings = _settings_of(workflow)
        mine = triggers.c.workflow == workflow.name
        known = {row.event_type: row for row in connection.execute(select(triggers).where(mine))}
        wanted = {trigger.name for trigger in workflow.on}
        connection.execute(delete(triggers).where(mine, triggers.c.event_type.not_in(wanted)))
        connection.execute(update(triggers).where(mine).values(**settings))
        for name in wanted - known.keys():
            row = {"event_type": name, "workflow": workflow.name, "after_position": position}
            connection.execute(insert(triggers).values(**row, **settings))
        for name, before in known.items():
            _redeclare_batches(connection, workflow, before, settings if name in wanted else None)


def _settings_of(workflow: AnyWorkflow) -> dict[str, Any]:
    batch = workflow.batch
    return {
        "version": workflow.version,
        "queue": workflow.queue,
        "queue_key": workflow.queue_key,
        "deadline_micros": workflow.deadline_micros,
        "takes_input": workflow.takes_input,
        "batch_events": batch.events if batch else None,
        "batch_micros": batch.timeout_micros if batch else None,
        "batch_key": batch.key if batch else None,
    }


def _redeclare_batches(connection: Connection, workflow: AnyWorkflow, before: Any, now: dict[str, Any] | None) -> None:
    """What has gathered is for what is declared now, and starts at once where it would gather otherwise now.

    Where nothing gathers any more it starts as what it was gathered for: the input may be no list now.
    """
    mine = and_(batches.c.workflow == workflow.name, batches.c.event_type == before.event_type)
    values: dict[str, Any] = {}
    if now is not None and now["batch_events"] is not None:
        values = {name: now[name] for name in ("version", "queue", "deadline_micros")}
    if now is None or any(now[name] != getattr(before, name) for name in BATCH_SETTINGS):
        values["due_at"] = TAKES_NO_MORE
    if values:
        connection.execute(update(batches).where(mine).values(**values))


def what_to_match(connection: Connection, now: int) -> Look:
    """Whether there is something to do after the cursor: the cheap question asked first."""
    found = connection.execute(LOOK, {"durable": MATCHER}).one()
    is_due = found.due_at is not None and found.due_at <= now
    if found.came or found.behind > SKIP_LIMIT or is_due:
        return Look(Work.MATCHES, found.due_at)
    return Look(Work.NOTHING_CAME if found.triggered or found.waited else Work.NOBODY_WAITS, found.due_at)


def match_next(connection: Connection, now: int) -> None:
    """Match the next events at `now`, move the cursor behind them, and start what is due: one transaction."""
    after = lock_matcher(connection)
    what = wanted(connection)
    found, reached = next_of_types(connection, what.types, after, head(connection).position)
    if found and not match_events(connection, found, what, now):
        return  # there is more to do before the cursor may move
    gather(connection, found, what.gathering, now)
    start_due(connection, now)
    connection.execute(
        update(subscription_cursors)
        .where(subscription_cursors.c.durable == MATCHER)
        .values(position=reached, updated_at=SystemClock().micros())
    )
