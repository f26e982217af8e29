"""What a run leaves in memory when it has ended or left: nothing."""

import gc
from datetime import UTC, datetime, timedelta

import pytest
from flows import address_changed

from lib_events.clock import SystemClock
from lib_events.testing import FakeClock, wait_until
from lib_workflows import Context, Engine, workflow
from lib_workflows.executor import Executor
from lib_workflows.residence import Limits
from lib_workflows.timers import Timers


@workflow(name="for-years")
async def for_years(ctx: Context) -> str:
    async with ctx.timeout(timedelta(days=3650)):
        return await ctx.wait_signal(address_changed, timeout=timedelta(days=365))


def executors_alive():
    gc.collect()
    return sum(isinstance(found, Executor) for found in gc.get_objects())


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
            return not engine.residence._executors

        await wait_until(everybody_left)
        assert executors_alive() == before


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
