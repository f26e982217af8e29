"""The machine's clock is set while runs are under way: what begins afterwards goes by the clock as it is then."""

from datetime import timedelta

import pytest
from flows import FAST, address_changed, double

from lib_events.clock import SystemClock
from lib_events.testing import wait_until
from lib_workflows import Context, Engine, StepFailed, WaitTimeout, current_step, step, workflow

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


async def rests(handle):
    return await handle.status() == "waiting"
