"""Time that skips: whenever every run rests, the clock goes to the next timer."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select

from lib_events.chance import seeded
from lib_events.clock import SystemClock, to_datetime
from lib_events.database import Connection
from lib_events.tables import events
from lib_workflows.authoring.workflow import AnyWorkflow
from lib_workflows.engine import Engine
from lib_workflows.events.matcher import Work, what_to_match
from lib_workflows.run_handle import RunHandle
from lib_workflows.testing.seeds import SERVICE, seed_for
from lib_workflows.values.durations import check_moment

POLL_SECONDS = 0.001
RESULT_SECONDS = 30.0
SEEDED_START = datetime(2026, 1, 1, tzinfo=UTC)


class SkippingClock:
    """A clock that stands still until it is told to skip."""

    def __init__(self, start: datetime | None = None) -> None:
        self._micros = SystemClock().micros() if start is None else check_moment(start, "start of an environment")

    def micros(self) -> int:
        """Microseconds since the epoch."""
        self._micros += 1  # no two moments are the same
        return self._micros

    def skip_to(self, micros: int) -> None:
        """Let it be `micros`, unless that has passed."""
        self._micros = max(self._micros, micros)


class Environment:
    """An engine whose time skips: whenever every run rests, the clock goes to the next timer."""

    def __init__(self, engine: Engine, clock: SkippingClock) -> None:
        self.engine = engine
        self.clock = clock

    @property
    def now(self) -> datetime:
        """The environment's time."""
        return to_datetime(self.clock.micros())

    async def result[R](self, handle: RunHandle[R], *, timeout: float = RESULT_SECONDS) -> R:  # noqa: ASYNC109
        """The run's result; time skips while everybody rests. `timeout` is in real seconds."""
        waiting = asyncio.ensure_future(handle.result(timeout))
        try:
            while not waiting.done():
                await asyncio.wait([waiting], timeout=POLL_SECONDS)
                if await self._is_quiet() and not waiting.done():
                    self._skip()
            return waiting.result()
        finally:
            waiting.cancel()

    async def until_resting(self, *, timeout: float = RESULT_SECONDS) -> None:  # noqa: ASYNC109
        """Wait, in real time, until every run rests or has ended."""
        async with asyncio.timeout(timeout):
            while not await self._is_quiet():  # noqa: ASYNC110 - quiet is many things at once
                await asyncio.sleep(POLL_SECONDS)

    async def skip(self, duration: timedelta) -> None:
        """Let time pass, timer by timer."""
        until = self.clock.micros() + round(duration.total_seconds() * 1e6)
        timers = self.engine.residence.timers
        # A schedule that was just made must wait for its time first, and so must events that gather.
        while await self._is_something_new():  # noqa: ASYNC110 - what is new is many things at once
            await asyncio.sleep(POLL_SECONDS)
        while (at := timers.next_at()) is not None and at <= until:
            self.clock.skip_to(at)
            timers.fire_due()
            await self.until_resting()
        self.clock.skip_to(until)

    async def _is_quiet(self) -> bool:
        """Whether every run rests and no event is on its way to one: it takes real time to get there."""
        residence = self.engine.residence
        if not residence.is_quiet or await self._are_events_on_their_way():
            return False
        return residence.is_quiet

    async def _is_something_new(self) -> bool:
        pausing = all(loop.is_pausing for loop in self.engine.residence.beside)
        return not pausing or await self._are_events_on_their_way()

    async def _are_events_on_their_way(self) -> bool:
        return await self.engine.database.read(_are_events_on_their_way, self.clock.micros())

    def _skip(self) -> None:
        timers = self.engine.residence.timers
        at = timers.next_at()
        if at is not None:
            self.clock.skip_to(at)
            timers.fire_due()


def _are_events_on_their_way(connection: Connection, now: int) -> bool:
    unplaced = select(events.c.sequence).where(events.c.last_position.is_(None)).limit(1)
    return what_to_match(connection, now).work is Work.MATCHES or connection.scalar(unplaced) is not None


@asynccontextmanager
async def environment(
    url: str,
    workflows: Sequence[AnyWorkflow],
    *,
    start: datetime | None = None,
    seed: int | None = None,
    **options: Any,
) -> AsyncIterator[Environment]:
    """Open an environment on a database; time begins at `start`.

    With a `seed` nothing is left to chance: the same test gets the same ids of runs, events and updates, the same
    `ctx.random()` and `ctx.uuid()`, and the same pauses between attempts, each time it runs. Time then begins at
    `SEEDED_START`. What is begun in two runs at once may still end in either order.
    """
    clock = SkippingClock(start or (SEEDED_START if seed is not None else None))
    with seeded(await seed_for(url, seed, options.get("service", SERVICE))):
        async with Engine.open(url, workflows, clock=clock, **options) as engine:
            yield Environment(engine, clock)
