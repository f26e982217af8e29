"""Starts the runs of schedules when they are due: a timer for the next time, and a slow poll beneath it."""

import asyncio
import logging
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Row, and_, exists, func, or_, select

from lib_events.database import EVENTS_TOPIC, Connection, Database
from lib_events.lifecycle import Loop
from lib_workflows.authoring.workflow import Registry
from lib_workflows.runs.commands import ENDED_TOPIC
from lib_workflows.scheduling.commands import SCHEDULES_TOPIC
from lib_workflows.scheduling.firing import UNDER_WAY, fire, what_is_due
from lib_workflows.scheduling.schedule import Schedule
from lib_workflows.tables import schedule_runs, schedules
from lib_workflows.timers import Timer, Timers

logger = logging.getLogger(__name__)

POLL_SECONDS = 5.0
WAITING_SECONDS = 0.1  # between two looks whether what a time waits for has ended
LOOK_LIMIT = 100


class Look(NamedTuple):
    """What there is to do at some moment."""

    due: Sequence[Row[Any]]  # of schedules whose next time has come, or one that waited need not wait any more
    waits: bool  # whether a time waits for a run to end
    next_at: int | None


def look(connection: Connection, workflows: list[str], failed: Collection[str], now: int) -> Look:
    """Look what is due, but for those that have just failed: reads only, so that schedules which rest cost nothing."""
    here = and_(schedules.c.paused.is_(False), schedules.c.workflow.in_(workflows), schedules.c.name.not_in(failed))
    waits = schedules.c.waiting_at.is_not(None)
    under_way = exists().where(schedule_runs.c.schedule == schedules.c.name, UNDER_WAY)
    due = or_(schedules.c.fire_at <= now, and_(waits, ~under_way))
    found = connection.execute(select(schedules).where(here, due).order_by(schedules.c.fire_at).limit(LOOK_LIMIT))
    waiting = select(schedules.c.name).where(here, waits).limit(1)
    later = select(func.min(schedules.c.fire_at)).where(here, schedules.c.fire_at > now)
    return Look(found.all(), connection.scalar(waiting) is not None, connection.scalar(later))


class Scheduler(Loop):
    """Fires what is due; any number of processes may run one, for each time the row lets one of them."""

    def __init__(self, database: Database, registry: Registry, timers: Timers) -> None:
        super().__init__(name="scheduler")
        self._database = database
        self._registry = registry
        self._timers = timers
        self._timer: Timer | None = None
        self._something_waits = False

    async def run(self) -> None:
        """Fire what is due, then pause until the next time."""
        on_notify = self._database.on_notify
        unsubscribe = [
            on_notify(SCHEDULES_TOPIC, self.wake),
            *(on_notify(topic, self._something_happened) for topic in (ENDED_TOPIC, EVENTS_TOPIC)),
        ]
        try:
            while True:
                await self._fire_all()
                await self.pause(POLL_SECONDS)
                if self._something_waits:
                    await asyncio.sleep(WAITING_SECONDS)
        finally:
            for stop in unsubscribe:
                stop()
            self._arm(None)

    async def _fire_all(self) -> None:
        """Fire everything that is due, then wait for what is next."""
        workflows = [workflow.name for workflow in self._registry.newest()]
        failed = set[str]()
        again = True
        while again:
            now = self._timers.clock.micros()
            before = len(failed)
            found = await self._database.read(look, workflows, sorted(failed), now)
            self._something_waits = found.waits
            again = any([await self._fire(row, now, failed) for row in found.due]) or len(failed) > before
        self._arm(found.next_at)

    async def _fire(self, row: Row[Any], now: int, failed: set[str]) -> bool:
        """Do what is due for one; returns whether there may be more. A defect of one is not the others'."""
        try:
            schedule = Schedule.of(row)
            workflow = self._registry.find(schedule.plan.workflow)
            due = what_is_due(schedule, now)
            return await self._database.transact(fire, schedule, due, workflow, now)
        except Exception:
            failed.add(row.name)
            logger.exception("schedule %s cannot fire now; it is tried again", row.name)
            return False

    def _something_happened(self) -> None:
        # While nothing waits for a run to end, commits are none of our business.
        if self._something_waits:
            self.wake()

    def _arm(self, at: int | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if at is None else self._timers.add(at, self.wake)
