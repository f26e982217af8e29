"""What a run leaves in memory when it has ended or left: nothing."""

import asyncio
import gc
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from flows import FAST, address_changed, doubling
from sqlalchemy import select

from lib_events.clock import SystemClock
from lib_events.testing import FakeClock, wait_until
from lib_workflows import Context, Engine, current_step, step, workflow
from lib_workflows.authoring.retry import Backoff
from lib_workflows.execution.driver import Driver
from lib_workflows.execution.executor import Executor
from lib_workflows.steps.attempt import Attempt
from lib_workflows.tables import runs
from lib_workflows.testing import environment
from lib_workflows.timers import Timers
from lib_workflows.workers import arrivals
from lib_workflows.workers.limits import Limits


@pytest.fixture
def no_slow_poll(monkeypatch):
    monkeypatch.setattr(arrivals, "POLL_SECONDS", 600.0)


@workflow(name="for-years")
async def for_years(ctx: Context) -> str:
    async with ctx.timeout(timedelta(days=3650)):
        return await ctx.wait_signal(address_changed, timeout=timedelta(days=365))


def executors_alive():
    gc.collect()
    return sum(isinstance(found, Executor) for found in gc.get_objects())


@asynccontextmanager
async def nothing_is_left():
    """No run that begins inside is kept by anything, and the garbage collector does not help."""
    gc.collect()
    others = {id(found) for found in gc.get_objects()}
    gc.disable()

    def all_gone():
        kept = [found for found in gc.get_objects() if isinstance(found, Executor | Driver | Attempt)]
        return all(id(found) in others for found in kept)

    try:
        yield
        await wait_until(all_gone)  # a thread may still be about to let go of its step
    finally:
        gc.enable()


async def test_runs_that_ended_or_left_are_not_kept_by_their_timers(sqlite_url):
    before = executors_alive()
    deadline = datetime.now(UTC) + timedelta(days=100)
    async with Engine.open(sqlite_url, [for_years], limits=Limits(idle_seconds=0)) as engine:
        handles = [await engine.start(for_years, deadline=deadline) for _ in range(10)]
        for handle in handles[:5]:
            await handle.signal(address_changed, "soon")
            assert await handle.result(10) == "soon"

        def everybody_left():
            engine.residence.evict_idle()
            return not engine.residence.executors

        await wait_until(everybody_left)
        assert executors_alive() == before


@step
async def waits_a_moment(number: int) -> int:
    await asyncio.sleep(0)
    return number


@step(retries=1, backoff=FAST, timeout=timedelta(seconds=10))
def fails_at_first(number: int) -> int:
    current_step().heartbeat(number)
    if current_step().attempt == 1:
        raise ValueError("not yet")
    return number


@workflow(name="many-sided")
async def many_sided(ctx: Context, number: int) -> int:
    waited = [ctx.step(waits_a_moment, n, undo=print) for n in range(2)]
    await ctx.race(ctx.step(waits_a_moment, 1), ctx.sleep(100))
    async with ctx.timeout(100):
        await ctx.gather(*waited, ctx.step(fails_at_first, 3), ctx.child(doubling, number))
    return number


async def test_what_has_ended_is_gone_without_the_garbage_collector(sqlite_url):
    async with Engine.open(sqlite_url, [many_sided, doubling]) as engine:
        assert await (await engine.start(many_sided, 0)).result(10) == 0
        async with nothing_is_left():
            for number in range(10):
                assert await (await engine.start(many_sided, number)).result(10) == number
            del number


@workflow(name="sleeps")
async def sleeps(ctx: Context, seconds: float) -> str:
    await ctx.sleep(seconds)
    return "awake"


async def test_who_sleeps_for_long_leaves_at_once_and_without_the_garbage_collector(sqlite_url):
    async with Engine.open(sqlite_url, [sleeps]) as engine, nothing_is_left():
        for seconds in (100_000.0, 50_000.0):
            await engine.start(sleeps, seconds)
        short = await engine.start(sleeps, 0.2)
        await wait_until(lambda: list(engine.residence.executors) == [short.id])
        assert await short.result(10) == "awake"


async def test_who_left_to_sleep_wakes_in_time(sqlite_url, no_slow_poll):
    async with Engine.open(sqlite_url, [sleeps], limits=Limits(idle_seconds=0.1)) as engine:
        handle = await engine.start(sleeps, 0.4)
        await wait_until(lambda: not engine.residence.executors)
        assert await handle.result(30) == "awake"


@workflow(name="starts-another-and-rests")
async def starts_another_and_rests(ctx: Context, how: str) -> None:
    await ctx.start(doubling, 1)
    await (ctx.sleep(timedelta(days=1)) if how == "sleeps" else ctx.wait_signal(address_changed))


@pytest.mark.parametrize("how", ["sleeps", "waits"])
async def test_who_has_told_others_of_something_leaves_like_anybody(database_url, how):
    async with Engine.open(database_url, [starts_another_and_rests, doubling], limits=Limits(idle_seconds=0)) as engine:
        handle = await engine.start(starts_another_and_rests, how)

        def has_left():
            engine.residence.evict_idle()
            return handle.id not in engine.residence.executors

        await wait_until(has_left)


@step(retries=5, backoff=Backoff(initial=timedelta(hours=1), maximum=timedelta(hours=1)))
async def cannot_be_undone_now(result: None) -> None:
    raise ConnectionError("not now")


@step
async def can_be_undone() -> None: ...


@workflow(name="undoes-patiently")
async def undoes_patiently(ctx: Context) -> None:
    await ctx.step(can_be_undone, undo=cannot_be_undone_now)
    raise LookupError("broken")


async def test_a_run_whose_deadline_passes_while_it_undoes_is_left_alone_until_it_tries_again(sqlite_url):
    async with environment(sqlite_url, [undoes_patiently], limits=Limits(idle_seconds=0)) as env:
        handle = await env.engine.start(undoes_patiently, deadline=env.now + timedelta(minutes=10))
        await env.until_resting()
        await env.skip(timedelta(minutes=30))

        def has_left():
            env.engine.residence.evict_idle()
            return handle.id not in env.engine.residence.executors

        await wait_until(has_left)
        assert await env.engine.database.read(lambda c: c.scalar(select(runs.c.wake_at))) > env.clock.micros()


async def test_a_memory_full_of_resting_runs_makes_room_for_a_new_one(sqlite_url, no_slow_poll):
    limits = Limits(idle_seconds=1_000, in_memory=5)
    async with Engine.open(sqlite_url, [for_years, doubling], limits=limits) as engine:
        resting = [await engine.start(for_years) for _ in range(8)]
        for number in range(8):
            assert await (await engine.start(doubling, number)).result(30) == 2 * number
        for handle in resting:
            await handle.signal(address_changed, "soon")
            assert await handle.result(10) == "soon"


async def test_a_place_in_memory_is_taken_as_soon_as_a_run_has_ended(sqlite_url, no_slow_poll):
    go_on = asyncio.Event()

    @step
    async def works() -> None:
        await go_on.wait()

    @workflow(name="busy")
    async def busy(ctx: Context) -> None:
        await ctx.step(works)

    async with Engine.open(sqlite_url, [busy, doubling], limits=Limits(in_memory=1)) as engine:
        first = await engine.start(busy)
        second = await engine.start(doubling, 2)
        await wait_until(lambda: engine.residence._wants_room)
        go_on.set()
        await first.result(10)
        assert await second.result(10) == 4


async def test_who_waits_in_vain_for_a_result_is_forgotten(sqlite_url):
    async with Engine.open(sqlite_url, [for_years]) as engine:
        handle = await engine.start(for_years)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await handle.result(0.01)
        assert not engine.results._waiting


async def test_cancelled_timers_are_swept_and_the_others_still_fire():
    timers, fired = Timers(SystemClock()), []
    year = 365 * 24 * 3600 * 1_000_000
    for _ in range(3_000):
        timers.add(SystemClock().micros() + year, lambda: None).cancel()
    assert len(timers._heap) < 1_500
    timers.add(SystemClock().micros(), lambda: fired.append("due"))
    await wait_until(lambda: fired)
    assert timers.next_at() is None
    timers.close()


async def test_a_timer_that_is_cancelled_by_one_before_it_does_not_fire():
    clock = FakeClock()
    timers, fired = Timers(clock), []
    second = timers.add(clock.micros() + 2, lambda: fired.append("second"))
    timers.add(clock.micros() + 1, second.cancel)
    clock.advance(timedelta(seconds=1))
    timers.fire_due()
    assert not fired
    timers.close()
