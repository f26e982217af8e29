"""Whole processes: killed, taken over, fenced, and code that has changed."""

import asyncio
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import flows
import pytest
from flows import address_changed, forever
from scenarios import WORKFLOWS, play_everything
from sqlalchemy import func, select, update

from lib_events.database import Fenced
from lib_events.testing import wait_until
from lib_workflows import Context, Engine, Registry, Signal, step, workflow
from lib_workflows.errors import Nondeterministic
from lib_workflows.reading import queries
from lib_workflows.runs import rewind
from lib_workflows.tables import runs, workers
from lib_workflows.testing import environment, export_history, replay_history
from lib_workflows.workers import worker
from lib_workflows.workers.worker import take_over

PROGRAM = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
import flows
from lib_workflows import Engine
from flows import Order, address_changed, doubling, everything, forever

async def main():
    async with Engine.open(sys.argv[1], [doubling, everything, forever], lease_seconds=0.5) as engine:
        await engine.database.transact(flows.make_stock)
        for number in range(20):
            await engine.start(forever, id=f"killed-{number}")
        print("started", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.opened_elsewhere
async def test_a_killed_process_loses_nothing(database_url):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, database_url, str(Path(__file__).parent), stdout=subprocess.PIPE
    )
    try:
        assert await asyncio.wait_for(process.stdout.readline(), 60) == b"started\n"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
    async with Engine.open(database_url, [forever], lease_seconds=0.5) as engine:
        handles = [engine.handle(f"killed-{number}", forever) for number in range(20)]
        for handle in handles:
            await handle.signal(address_changed, "found")
        assert await asyncio.gather(*(handle.result(30) for handle in handles)) == ["found"] * 20
        for handle in handles:
            assert await engine.database.read(flows.stock_of, handle.id) == [-1]


@pytest.mark.postgresql
async def test_a_dead_workers_runs_go_on_elsewhere_and_its_zombie_is_refused(postgresql_url):
    async with Engine.open(postgresql_url, [forever], lease_seconds=0.5) as second:
        await second.database.transact(flows.make_stock)
        async with Engine.open(postgresql_url, [forever], lease_seconds=0.5) as first:
            handle = await first.start(forever)
            await wait_until(lambda: first.database.read(flows.stock_of, handle.id))
            first._worker._renewal.stop()  # paused: its lease runs out, its memory does not know
            zombie = first.residence
            zombie.fenced = lambda: None

            async def refused():
                try:
                    await first.database.transact(lambda connection: None, fence=zombie.fence)
                except Fenced:
                    return True
                return False

            await wait_until(refused)
            with pytest.raises(Fenced):
                await first.database.write(fence=zombie.fence)
            await first.abandon()
        await second.handle(handle.id).signal(address_changed, "taken over")
        assert await second.handle(handle.id, forever).result(20) == "taken over"
        assert await second.database.read(flows.stock_of, handle.id) == [-1]


@pytest.mark.postgresql
async def test_two_workers_share_the_queue(postgresql_url):
    ran = []

    @step
    async def who(number: int) -> int:
        ran.append(number)
        return number

    @workflow(name="shared")
    async def shared(ctx: Context, number: int) -> int:
        return await ctx.step(who, number)

    async with Engine.open(postgresql_url, [shared]) as one, Engine.open(postgresql_url, [shared]) as two:
        front = Engine(one.database, Registry.of([shared]), works=False)
        async with front:
            handles = await front.start_many(shared, range(300))
            assert await asyncio.gather(*(handle.result(30) for handle in handles)) == list(range(300))
        assert sorted(ran) == list(range(300))
        assert await one.database.read(queries.count_runs) == {"completed": 300}
        assert two.residence.is_quiet


@pytest.mark.postgresql
async def test_a_worker_that_lives_is_not_taken_over(postgresql_url):
    async with Engine.open(postgresql_url, [forever]) as engine:
        assert not await engine.database.transact(take_over, engine._worker.id, engine._worker.epoch)


go = Signal("go", str)


async def test_changed_code_is_parked_with_a_diff_and_goes_on_when_it_fits_again(database_url):
    @step
    async def first() -> str:
        return "first"

    @step
    async def other() -> str:
        return "other"

    @workflow(name="changing")
    async def before(ctx: Context) -> str:
        await ctx.step(first)
        return await ctx.wait_signal(go)

    @workflow(name="changing")
    async def changed(ctx: Context) -> str:
        await ctx.step(other)
        return await ctx.wait_signal(go)

    async with Engine.open(database_url, [before]) as engine:
        handle = await engine.start(before, id="changing")
        await wait_until(lambda: _has_status(engine, "waiting"))
    async with Engine.open(database_url, [changed]) as engine:
        handle = engine.handle("changing", changed)
        await handle.signal(go, "on")
        with pytest.raises(Nondeterministic) as caught:
            await handle.result(10)
        assert "history has operation 1: step 'first'" in str(caught.value)
        assert "the code has operation 1: step 'other'" in str(caught.value)
        assert await handle.status() == "nondeterministic"
    async with Engine.open(database_url, [before]) as engine:
        await engine.database.transact(rewind.retry, "changing")
        assert await engine.handle("changing", before).result(10) == "on"


async def _has_status(engine, status):
    return (await engine.database.read(queries.get_run, "changing")).status == status


async def test_a_run_stays_with_its_version(database_url):
    @workflow(name="versioned", version=1)
    async def one(ctx: Context) -> str:
        return f"one {await ctx.wait_signal(go)}"

    @workflow(name="versioned", version=2)
    async def two(ctx: Context) -> str:
        return "two"

    async with Engine.open(database_url, [one]) as engine:
        await engine.start(one, id="changing")
        await wait_until(lambda: _has_status(engine, "waiting"))
    async with Engine.open(database_url, [two]) as engine:
        await engine.handle("changing").signal(go, "kept")
        assert await (await engine.start(two)).result(10) == "two"
        assert await engine.handle("changing").status() == "waiting"
    async with Engine.open(database_url, [one, two]) as engine:
        assert await engine.handle("changing", one).result(10) == "one kept"


async def test_time_skips_in_the_environment(sqlite_url):
    sent = []

    @step
    async def remind(name: str) -> None:
        sent.append(name)

    @workflow(name="reminder")
    async def reminder(ctx: Context, name: str) -> float:
        begin = ctx.now()
        await ctx.sleep(3 * 24 * 3600)
        await ctx.step(remind, name)
        return (ctx.now() - begin).total_seconds() // 3600

    async with environment(sqlite_url, [reminder]) as env:
        handle = await env.engine.start(reminder, "anna")
        assert await env.result(handle) == 72
        assert sent == ["anna"]


async def test_an_exported_history_is_replayed_against_todays_code(sqlite_url):
    async with Engine.open(sqlite_url, [flows.doubling]) as engine:
        handle = await engine.start(flows.doubling, 4)
        await handle.result(10)
        exported = await export_history(engine, handle.id)
    assert replay_history(flows.doubling, exported) == 8
    exported["history"][0]["name"] = "triple"
    with pytest.raises(Nondeterministic):
        replay_history(flows.doubling, exported)


@pytest.mark.postgresql
@pytest.mark.parametrize("rows", [0, 1, 2, 3, 6, 9])
async def test_a_worker_taken_for_dead_begins_again(postgresql_url, rows):
    """The worst moment to be paused: everything it does is refused, and everything is done once all the same."""

    def end_life(connection, worker_id, epoch):
        mine = workers.c.id == worker_id
        connection.execute(update(workers).where(mine).values(lease_until_at=0))
        assert take_over(connection, worker_id, epoch)

    async with Engine.open(postgresql_url, WORKFLOWS) as engine:
        playing = asyncio.ensure_future(play_everything(engine))

        async def far_enough():
            return playing.done() or len(await engine.database.read(queries.get_history, "the-run")) >= rows

        await wait_until(far_enough)
        await engine.database.transact(end_life, engine._worker.id, engine._worker.epoch)
        result = await asyncio.wait_for(playing, 30)
        assert result["children"] == [0, 2, 4]
        assert await engine.database.read(flows.stock_of, "the-run") == [-7]
        # Still a worker, in another life.
        assert await (await engine.start(flows.doubling, 3)).result(30) == 6


async def test_a_dead_lifes_runs_are_set_free_in_pieces(database_url, monkeypatch):
    monkeypatch.setattr(worker, "PIECE", 10)
    async with Engine.open(database_url, [forever]) as engine:
        await engine.database.transact(flows.make_stock)
        database = engine.database

        async def held():
            return await database.read(lambda c: c.scalar(select(func.count()).where(runs.c.owner == "somebody")))

        requests = [engine.request(forever, None, delay=timedelta(days=1)) for _ in range(25)]
        ids = await engine.submit_many(requests)
        hold = update(runs).where(runs.c.id.in_(ids)).values(owner="somebody", status="running", wake_at=None)
        await database.transact(lambda connection: connection.execute(hold) and None)
        assert await database.transact(worker.release_runs, "somebody", 10) == 10
        assert await held() == 15
        await worker.set_free(database, "somebody")
        assert await held() == 0
        due = select(func.count()).where(runs.c.id.in_(ids), runs.c.wakes == 1)
        assert await database.read(lambda connection: connection.scalar(due)) == 25


@pytest.mark.postgresql
async def test_a_worker_that_died_before_the_databases_clock_was_set_back_strands_nobody(postgresql_url):
    """Its lease ends in three hours, by the clock as it is now."""
    async with Engine.open(postgresql_url, [forever], lease_seconds=0.4) as engine:
        await engine.database.transact(flows.make_stock)
        handle = await engine.start(forever)
        await wait_until(lambda: rests(handle))
        await engine.abandon()
        later = workers.c.lease_until_at + 3 * 3_600 * 1_000_000
        await engine.database.transact(lambda c: c.execute(update(workers).values(lease_until_at=later)))
    async with Engine.open(postgresql_url, [forever], lease_seconds=0.4) as engine:
        handle = engine.handle(handle.id, forever)
        await handle.signal(address_changed, "found")
        assert await handle.result(10) == "found"


@pytest.mark.postgresql
async def test_a_worker_that_lives_keeps_its_lease_when_the_databases_clock_is_set_back(postgresql_url):
    async with Engine.open(postgresql_url, [forever], lease_seconds=0.4) as engine:
        life = engine.residence.worker_id
        later = workers.c.lease_until_at + 3 * 3_600 * 1_000_000
        async with Engine.open(postgresql_url, [forever], lease_seconds=0.4) as other:
            await other.database.transact(lambda c: c.execute(update(workers).values(lease_until_at=later)))
            await wait_until(lambda: is_renewed(other))
            assert engine.residence.worker_id == life


async def is_renewed(engine):
    """Whether every lease ends when it can."""
    return not await engine.database.read(worker.doubtful_leases)


async def rests(handle):
    return await handle.status() == "waiting"
