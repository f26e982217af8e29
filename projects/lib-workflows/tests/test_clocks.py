"""The machine's clock is set while runs are under way: what begins afterwards goes by the clock as it is then."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pytest
from flows import FAST, address_changed, double

from lib_events.clock import SystemClock
from lib_events.testing import wait_until
from lib_workflows import Context, Engine, RunFailed, StepFailed, WaitTimeout, current_step, step, workflow

THREE_HOURS = 3 * 3_600 * 1_000_000


class ClockThatIsSet:
    """The system's clock, and by how much somebody has set it."""

    def __init__(self):
        self.set_by = 0

    def micros(self):
        return SystemClock().micros() + self.set_by


@workflow(name="naps")
async def nap(ctx: Context) -> str:
    await ctx.wait_signal(address_changed)
    await ctx.sleep(0.05)
    await ctx.step(double, 1)
    await ctx.sleep(0.05)
    return "rested"


@workflow(name="listens-for-a-moment")
async def listen_for_a_moment(ctx: Context) -> str:
    await ctx.wait_signal(address_changed)
    try:
        await ctx.wait_signal(address_changed, timeout=0.05)
    except WaitTimeout:
        return "nothing came"
    return "something came"


@step(retries=1_000_000, backoff=FAST, total_timeout=timedelta(seconds=0.3))
async def never_well() -> None:
    raise ConnectionError(current_step().name)


@workflow(name="tries-for-a-moment")
async def try_for_a_moment(ctx: Context) -> str:
    await ctx.wait_signal(address_changed)
    try:
        await ctx.step(never_well)
    except StepFailed:
        return "never well"
    return "well"


@pytest.mark.parametrize(
    ("flow", "result"),
    [(nap, "rested"), (listen_for_a_moment, "nothing came"), (try_for_a_moment, "never well")],
    ids=["sleeps", "waits", "tries"],
)
@pytest.mark.parametrize("crashes", [False, True], ids=["in memory", "after a crash"])
async def test_a_clock_that_is_set_back_lets_nobody_wait_until_it_is_where_it_was(database_url, flow, result, crashes):
    clock = ClockThatIsSet()
    options = {"clock": clock, "lease_seconds": 0.3}
    async with Engine.open(database_url, [flow], **options) as engine:
        handle = await engine.start(flow)
        await wait_until(lambda: rests(handle))
        clock.set_by = -THREE_HOURS
        if not crashes:
            await handle.signal(address_changed, "go")
            assert await handle.result(10) == result
            return
        await engine.abandon()
    async with Engine.open(database_url, [flow], **options) as engine:
        handle = engine.handle(handle.id, flow)
        await handle.signal(address_changed, "go")
        assert await handle.result(10) == result


begun, most, go_on = [], [], threading.Event()


@step(retries=5, backoff=FAST, timeout=timedelta(milliseconds=50), total_timeout=timedelta(milliseconds=200))
def hang_in_a_thread() -> None:
    begun.append(current_step().attempt)
    most.append(len(begun))
    go_on.wait(30)
    begun.pop()


@workflow(name="hangs-in-a-thread")
async def hang(ctx: Context) -> None:
    await ctx.step(hang_in_a_thread)


async def test_no_attempt_begins_beside_the_thread_of_the_one_before_though_the_clock_says_there_is_time(sqlite_url):
    """The total time is over by the thread's clock, and by the one that was set back it is not."""
    clock = ClockThatIsSet()
    for record in (begun, most, go_on):
        record.clear()
    async with Engine.open(sqlite_url, [hang], clock=clock) as engine:
        handle = await engine.start(hang)
        await wait_until(lambda: most)
        clock.set_by = -THREE_HOURS
        try:
            with pytest.raises(StepFailed, match="with all its attempts"):
                await handle.result(10)
        finally:
            go_on.set()
    assert most == [1]


@step
async def work_for_ever() -> None:
    begun.append(current_step().attempt)
    await asyncio.Event().wait()


@workflow(name="works-for-ever")
async def works_for_ever(ctx: Context) -> None:
    await ctx.step(work_for_ever)


async def test_a_clock_that_is_set_forward_is_soon_noticed_by_runs_that_are_at_work(sqlite_url):
    """As by a machine that was asleep: its timers go on from where they were."""
    clock = ClockThatIsSet()
    begun.clear()
    async with Engine.open(sqlite_url, [works_for_ever], clock=clock) as engine:
        handle = await engine.start(works_for_ever, deadline=datetime.now(UTC) + timedelta(hours=2))
        await wait_until(lambda: begun)
        clock.set_by = THREE_HOURS
        with pytest.raises(RunFailed, match="DeadlineExceeded"):
            await handle.result(15)


async def rests(handle):
    return await handle.status() == "waiting"
