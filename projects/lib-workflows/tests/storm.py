"""What the storms share: workers that vanish without a good-bye, people who act at the same time, and what must hold.

`EVS_TEST_STORM=20` makes every storm twenty times as large, `EVS_TEST_STORM_SEED=7` draws another one.
"""

import asyncio
import os
import random
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
from sqlalchemy import func, select, update

from lib_events.database import CommitFailed
from lib_events.tables import events
from lib_events.testing import wait_until
from lib_workflows import Engine
from lib_workflows.runs.state import ENDED
from lib_workflows.tables import approvals, attempts, event_waits, runs, workers
from lib_workflows.workers import arrivals
from lib_workflows.workers.limits import Limits
from lib_workflows.workers.worker import take_over

SIZE = int(os.environ.get("EVS_TEST_STORM", "1"))
SEED = int(os.environ.get("EVS_TEST_STORM_SEED", "1"))
LEASE_SECONDS = 0.4


def chance_of(storm):
    """The chance of a storm: each has its own, and the same each time."""
    return random.Random(f"{storm} {SEED}")


class Done:
    """What the steps of a storm have done and undone, in this process."""

    def __init__(self):
        self.clear()

    def clear(self):
        self.did, self.undid = Counter(), Counter()
        self.undid_unknown = Counter()  # those of them of which the run did not know whether they had happened


class Fleet:
    """Workers on a database, several on PostgreSQL, of which now and then one is lost and another one comes."""

    def __init__(self, url, flows, chance, options):
        self.chance = chance
        self.lost = Counter()
        self._open = lambda: Engine.open(url, flows, **options)
        self._count = 1 if url.startswith("sqlite") else 2
        self._stacks, self._engines = [], []
        self._users = 0
        self._steady = asyncio.Condition()

    async def begin(self):
        for _ in range(self._count):
            await self._add()

    async def end(self):
        for stack in self._stacks:
            await stack.aclose()

    async def _add(self):
        stack = AsyncExitStack()
        self._engines.append(await stack.enter_async_context(self._open()))
        self._stacks.append(stack)

    @asynccontextmanager
    async def engine(self):
        """Any of the workers; of a file there is one, and it is not lost within the block."""
        async with self._steady:
            self._users += 1
        try:
            yield self.chance.choice(self._engines)
        finally:
            async with self._steady:
                self._users -= 1
                self._steady.notify_all()

    async def lose_one(self):
        """A worker vanishes with all it has in memory, ends well, or is taken for dead and lives."""
        index, how = self.chance.randrange(len(self._engines)), self.chance.choice(["vanishes", "ends", "is buried"])
        self.lost[how] += 1
        if how == "is buried" and self._count > 1:
            await self.transact(bury, self._engines[index]._worker)
            return
        async with self._steady:
            await self._steady.wait_for(lambda: not self._users)
            engine, stack = self._engines.pop(index), self._stacks.pop(index)
            if how != "ends":
                await engine.abandon()
            await stack.aclose()
            await self._add()

    async def transact(self, function, *args):
        async with self.engine() as engine:
            return await engine.database.transact(function, *args)

    async def read(self, function, *args):
        async with self.engine() as engine:
            return await engine.database.read(function, *args)

    async def pause(self, most=20):
        """Let others go on, for a while that is left to chance."""
        for _ in range(self.chance.randint(0, most)):
            await asyncio.sleep(0)

    async def until_ended(self, run_ids, seconds=60):
        """Wait until all of them have ended; returns status, output and error of each."""
        columns = (runs.c.id, runs.c.status, runs.c.output, runs.c.error, runs.c.owner)

        async def ended():
            query = select(*columns).where(runs.c.id.in_(run_ids))
            found = {row.id: row for row in await self.read(lambda c: c.execute(query).all())}
            return found if len(found) == len(run_ids) and all(row.status in ENDED for row in found.values()) else None

        try:
            return await wait_until(ended, timeout=seconds)
        except TimeoutError:
            query = select(runs).where(runs.c.id.in_(run_ids), runs.c.status.not_in(ENDED))
            stuck = await self.read(lambda c: c.execute(query).mappings().all())
            raise AssertionError(f"stuck: {[dict(row) for row in stuck]}") from None


def bury(connection, worker):
    """Take over from a worker that lives, as if its lease had run out."""
    connection.execute(update(workers).where(workers.c.id == worker.id).values(lease_until_at=0))
    take_over(connection, worker.id, worker.epoch)


@asynccontextmanager
async def fleet(url, flows, storm, **options):
    """Open the workers of a storm."""
    given = {"limits": Limits(idle_seconds=0.0), "lease_seconds": LEASE_SECONDS} | options
    made = Fleet(url, flows, chance_of(storm), given)
    with pytest.MonkeyPatch.context() as patch:
        if url.startswith(
            "sqlite"
        ):  # no notification can be lost there: a run that needs the slow poll was left behind
            patch.setattr(arrivals, "POLL_SECONDS", 600.0)
        try:
            await made.begin()
            yield made
        finally:
            await made.end()


async def side_by_side(*people):
    """Let everybody act at once; whoever fails fails the storm."""
    async with asyncio.TaskGroup() as group:
        for each in people:
            group.create_task(each)


@asynccontextmanager
async def losing_workers(made, times):
    """Within the block workers are lost, so many times."""

    async def lose():
        for _ in range(times):
            await made.pause(200)
            await made.lose_one()

    losing = asyncio.ensure_future(lose())
    try:
        yield
        await losing
    finally:
        losing.cancel()
        with suppress(asyncio.CancelledError, CommitFailed):
            await losing


async def nothing_is_left(made):
    """What must hold after every storm: nobody holds, awaits, asks or tries anything for a run that has ended."""

    def look(connection):
        over = select(runs.c.id).where(runs.c.ended_at.is_not(None))
        held = select(func.count()).select_from(runs).where(runs.c.owner.is_not(None))
        tried = select(func.count()).select_from(attempts).where(attempts.c.run.in_(over))
        awaited = select(func.count()).select_from(event_waits).where(event_waits.c.run.in_(over))
        asked = select(func.count()).select_from(approvals)
        asked = asked.where(approvals.c.run.in_(over), approvals.c.status == "pending")
        return [connection.scalar(query) for query in (held, tried, awaited, asked)]

    assert await made.read(look) == [0, 0, 0, 0]


async def ends_of(made, types):
    """How often the log tells of events of these types, by their subject."""
    query = select(events.c.subject, func.count()).where(events.c.type.in_(types)).group_by(events.c.subject)
    return dict(await made.read(lambda c: [tuple(row) for row in c.execute(query)]))
