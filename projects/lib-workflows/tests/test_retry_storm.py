"""Runs that fail, hang, miss deadlines, are cancelled, retried, forked while they are worked on and lose their worker.

Whatever happened on the way, in the end each has done what it does, once.
"""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from flows import FAST
from sqlalchemy import select
from storm import SIZE, chance_of, ends_of, fleet, losing_workers, nothing_is_left, side_by_side

from lib_events.database import Connection
from lib_events.testing import wait_until
from lib_workflows import Context, current_step, step, workflow
from lib_workflows.errors import CommandRefused, OperationNotFound
from lib_workflows.runs import commands, rewind
from lib_workflows.runs.lifecycle_events import RUN_COMPLETED
from lib_workflows.tables import history, runs

RUNS = 8 * SIZE
FORKS = 4 * SIZE


class Weather:
    """What happens to steps: while it storms they fail and hang."""

    def __init__(self):
        self.begin()

    def begin(self):
        self.chance, self.storms = chance_of("weather"), True

    def strikes(self):
        return self.storms and self.chance.random() < 0.25


weather = Weather()


@pytest.fixture(autouse=True)
def _storms():
    weather.begin()


def make_ledger(connection: Connection) -> None:
    connection.execute(sa.text("CREATE TABLE IF NOT EXISTS ledger (name TEXT, change INTEGER)"))


def enter(connection: Connection, name: str) -> None:
    connection.execute(sa.text("INSERT INTO ledger (name, change) VALUES (:name, 1)"), {"name": name})


def withdraw(connection: Connection, entered: None, name: str) -> None:
    connection.execute(sa.text("INSERT INTO ledger (name, change) VALUES (:name, -1)"), {"name": name})


@step(retries=1, backoff=FAST, timeout=timedelta(seconds=5), heartbeat_timeout=timedelta(milliseconds=30))
async def shaky(name: str) -> str:
    current_step().heartbeat(name)
    if weather.strikes():
        if weather.chance.random() < 0.5:
            raise ConnectionError(name)
        await asyncio.Event().wait()  # it hangs, and its heart stands still
    return name


@step(retries=1, backoff=FAST, start_timeout=timedelta(seconds=5), total_timeout=timedelta(seconds=20))
def threaded(name: str) -> str:
    if weather.strikes():
        raise ConnectionError(name)
    return name


@workflow(name="part-of-work")
async def part_of_work(ctx: Context, name: str) -> str:
    await ctx.transaction(enter, f"{ctx.run_id}", undo=withdraw)
    return await ctx.step(shaky, name)


async def undo_part(result: str | None, name: str) -> None:
    return


@workflow(name="work")
async def work(ctx: Context) -> list[str]:
    """Enter what is done, between steps that may fail."""
    await ctx.transaction(enter, f"{ctx.run_id}.1")
    await ctx.step(shaky, "a")
    await ctx.transaction(enter, f"{ctx.run_id}.3", undo=withdraw)
    found = await ctx.gather(
        ctx.step(shaky, "b"), ctx.step(threaded, "c"), ctx.child(part_of_work, "d", undo=undo_part), limit=2
    )
    await ctx.transaction(enter, f"{ctx.run_id}.5", undo=withdraw)
    await ctx.sleep(0.005)
    return [*found, await ctx.step(shaky, "e")]


class People:
    """They cancel, retry and fork what they see."""

    def __init__(self, made, run_ids):
        self.made, self.run_ids = made, list(run_ids)
        self.copied = {}  # of each fork: the transactions that it need not do

    async def command(self, function, *args):
        try:
            return await self.made.transact(function, *args)
        except (CommandRefused, OperationNotFound):
            return None

    async def interfere(self):
        chance = self.made.chance
        for _ in range(6 * len(self.run_ids)):
            run_id = chance.choice(self.run_ids)
            await self.command(commands.cancel if chance.random() < 0.3 else rewind.retry, run_id)
            await self.made.pause(60)

    async def fork(self):
        for number in range(FORKS):
            await self.made.pause(300)
            source, fork_id = self.made.chance.choice(self.run_ids), f"fork-{number}"
            operations = await self.made.read(lambda c, source=source: c.scalars(_steps_of(source)).all())
            if not operations:
                continue
            operation = self.made.chance.choice(operations)
            copied = await self.command(_fork, source, operation, fork_id)
            if copied is not None:
                self.copied[fork_id] = copied

    async def retry_until_done(self):
        """In calm weather everything comes to its end."""
        run_ids = [*self.run_ids, *self.copied]

        async def all_completed():
            ended = await self.made.until_ended(run_ids)
            failed = [run.id for run in ended.values() if run.status != "completed"]
            for run_id in failed:
                await self.made.transact(rewind.retry, run_id)
            return not failed

        await wait_until(all_completed, timeout=60)
        return await self.made.until_ended(run_ids)


def _steps_of(run_id):
    return select(history.c.operation).where(
        history.c.run == run_id, history.c.voided == 0, history.c.kind.in_(["step", "transaction", "sleep"])
    )


def _fork(connection, source, operation, fork_id):
    rewind.fork(connection, source, from_operation=operation, new_id=fork_id)
    done = select(history.c.operation).where(history.c.run == fork_id, history.c.kind == "transaction")
    return set(connection.scalars(done).all())


async def test_whatever_is_retried_and_forked_is_done_once_in_the_end(database_url):
    async with fleet(database_url, [work, part_of_work], "retries") as made:
        await made.transact(make_ledger)
        people = People(made, [f"work-{number}" for number in range(RUNS)])
        for number, run_id in enumerate(people.run_ids):
            soon = datetime.now(UTC) + timedelta(milliseconds=made.chance.randint(1, 200))
            async with made.engine() as engine:
                await engine.start(work, id=run_id, deadline=soon if number % 4 == 0 else None)
        async with losing_workers(made, 3 * SIZE):
            await side_by_side(people.interfere(), people.fork())
        weather.storms = False
        ended = await people.retry_until_done()
        await check(made, people, ended)
        await nothing_is_left(made)


async def check(made, people, ended):
    entered = Counter()
    for name, change in await made.read(lambda c: c.execute(sa.text("SELECT name, change FROM ledger")).all()):
        entered[name] += change
        assert entered[name] in {-1, 0, 1}, name
    for run_id in ended:
        copied = people.copied.get(run_id, set())
        for operation in ("1", "3", "5"):
            assert entered[f"{run_id}.{operation}"] == (operation not in copied), (run_id, operation, copied)
    children = select(runs.c.id, runs.c.status).where(runs.c.workflow == part_of_work.name)
    for run_id, status in await made.read(lambda c: c.execute(children).all()):
        assert entered[run_id] == (status == "completed"), (run_id, status)
    completed = await ends_of(made, [RUN_COMPLETED.name])
    assert {run_id: completed[run_id] for run_id in ended} == dict.fromkeys(ended, 1)
