"""Workers on one database whose time skips for all of them together."""

import asyncio

from sqlalchemy import func, select

from lib_workflows.runs.state import ENDED
from lib_workflows.tables import runs
from lib_workflows.testing import Environment

POLL_SECONDS = 0.001


class Crew:
    """Like `Environment`, of several engines: whoever asks for one gets the next of them."""

    def __init__(self, engines, clock):
        self.clock = clock
        self._environments = [Environment(engine, clock) for engine in engines]

    @property
    def engine(self):
        self._environments.append(self._environments.pop(0))
        return self._environments[0].engine

    async def skip(self, duration):
        """Let time pass, timer by timer, whoever has it."""
        until = self.clock.micros() + round(duration.total_seconds() * 1e6)
        while (at := self._next_at()) is not None and at <= until:
            self.clock.skip_to(at)
            for timers in self._timers():
                timers.fire_due()
            await self.until_resting()
        self.clock.skip_to(until)

    async def until_resting(self, *, seconds=60):
        """Wait, in real time, until nothing is to be done before the next timer."""
        async with asyncio.timeout(seconds):
            while not await self._rests():  # noqa: ASYNC110 - rest is many things at once
                await asyncio.sleep(POLL_SECONDS)

    async def _rests(self):
        for each in self._environments:
            if not await each._is_quiet():
                return False
        due_at, alien = await self.engine.database.read(look_for_work, [*self._owners()])
        next_at = self._next_at()
        return not alien and (due_at is None or (next_at is not None and self.clock.micros() < next_at <= due_at))

    def _next_at(self):
        return min((at for timers in self._timers() if (at := timers.next_at()) is not None), default=None)

    def _timers(self):
        return [each.engine.residence.timers for each in self._environments]

    def _owners(self):
        return (each.engine.residence.worker_id for each in self._environments)


def look_for_work(connection, owners):
    """When the next run is due, and how many are held by nobody who lives."""
    goes_on = runs.c.status.not_in(ENDED)
    held = select(func.count()).where(goes_on, runs.c.owner.is_not(None), runs.c.owner.not_in(owners))
    return connection.scalar(select(func.min(runs.c.wake_at)).where(goes_on)), connection.scalar(held)
