"""Runs that nobody takes: no worker that lives holds their version, serves their queue, and has the tags they need."""

import logging
from typing import NamedTuple

from sqlalchemy import func, select

from lib_events.clock import Clock
from lib_events.database import Connection, Database
from lib_events.lifecycle import Loop
from lib_workflows.authoring.workflow import Registry
from lib_workflows.queueing.slots import IS_QUEUED, is_unlimited
from lib_workflows.tables import runs, schedules

logger = logging.getLogger(__name__)

LATE_SECONDS = 30.0  # a worker that lives and can, takes a due run within its slow poll
LOOK_SECONDS = 60.0
REPEAT_SECONDS = 3600.0
WOKEN = 0  # `wake_at` of a run that has messages: due now


class Unclaimed(NamedTuple):
    """Runs of one kind that have been due for a while and that nobody has taken."""

    workflow: str
    version: int
    queue: str
    number: int
    since: int | None  # micros; None where a message has woken them, who knows when


def unclaimed_runs(connection: Connection, before: int) -> list[Unclaimed]:
    """What was due before `before` and is in nobody's memory; a limited queue may well have runs that wait."""
    kind = (runs.c.workflow, runs.c.version, runs.c.queue)
    query = select(*kind, func.count(), func.min(func.nullif(runs.c.wake_at, WOKEN))).group_by(*kind)
    due = query.where(runs.c.owner.is_(None), runs.c.wake_at < before, runs.c.status != "nondeterministic")
    each = (connection.execute(due.where(which)).all() for which in (~IS_QUEUED, is_unlimited(connection, before)))
    return [Unclaimed(*tuple(row)) for rows in each for row in rows]


def late_schedules(connection: Connection, before: int) -> list[tuple[str, str]]:
    """The schedules, and their workflows, that should have started a run before `before`: nobody here can."""
    query = select(schedules.c.name, schedules.c.workflow)
    late = query.where(schedules.c.fire_at < before, schedules.c.paused.is_(False)).order_by(schedules.c.name)
    return [(row.name, row.workflow) for row in connection.execute(late)]


class UnclaimedAlarm(Loop):
    """Looks once a minute, reads only, and says the same at most once an hour."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        registry: Registry | None = None,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        super().__init__(name="alarm of unclaimed runs")
        self._database = database
        self._clock = clock
        self._registry = registry or Registry.of([])
        self._look_seconds = look_seconds
        self._said: dict[tuple[object, ...], int] = {}
        self._found_woken: set[tuple[object, ...]] = (
            set()
        )  # kinds of which the last look found runs that may have been woken just then

    async def run(self) -> None:
        """Look, again and again."""
        while True:
            await self.pause(self._look_seconds)
            now = self._clock.micros()
            before = now - int(LATE_SECONDS * 1e6)
            await self._look(now, before)
            for name, workflow in await self._database.read(late_schedules, before):
                self._say_late(name, workflow, now)

    async def _look(self, now: int, before: int) -> None:
        kinds = await self._database.read(unclaimed_runs, before)
        woken: set[tuple[object, ...]] = {found[:3] for found in kinds if found.since is None}
        for found in kinds:
            if found.since is not None or found[:3] in self._found_woken:
                self._say(found, now)
        self._found_woken = woken

    def _say(self, found: Unclaimed, now: int) -> None:
        if not self._is_new((found.workflow, found.version, found.queue), now):
            return
        logger.error(
            "%d run(s) of workflow %s version %d in queue %s have been due for %s and nobody takes them; start a "
            "worker that holds that version and serves that queue%s, or cancel them",
            found.number,
            found.workflow,
            found.version,
            found.queue,
            "a while" if found.since is None else f"{(now - found.since) // 1_000_000} s",
            self._tags_of(found),
        )

    def _say_late(self, name: str, workflow: str, now: int) -> None:
        if self._is_new((name,), now):
            logger.error(
                "schedule %s is due and nobody starts its run; start a worker that holds workflow %s, or pause it",
                name,
                workflow,
            )

    def _is_new(self, what: tuple[object, ...], now: int) -> bool:
        """Whether it has not been said of late."""
        if now - self._said.get(what, 0) < REPEAT_SECONDS * 1e6:
            return False
        self._said[what] = now
        return True

    def _tags_of(self, found: Unclaimed) -> str:
        """What the worker must have beside, as far as this process knows."""
        if not self._registry.holds(found.workflow, found.version):
            return ""
        requires = self._registry.find(found.workflow, found.version).requires
        return f", with the tags {', '.join(sorted(requires))}" if requires else ""
