"""For tests of workflows, in plain pytest: time that skips, crashes at the n-th commit, replay of a history.

async def test_a_reminder_is_sent_after_three_days(tmp_path):
    async with environment(f"sqlite:///{tmp_path}/test.db", workflows=[remind]) as env:
        handle = await env.engine.start(remind, "anna")
        assert await env.result(handle) == "reminded"          # three days pass at once

async def test_it_survives_a_crash_at_every_commit(tmp_path):
    async def scenario(engine):
        return await (await engine.start(order, Order(), id="order-1")).result(10)

    crashed, n = True, 0
    while crashed:
        n += 1
        url = f"sqlite:///{tmp_path}/{n}.db"
        result, crashed = await survive(url, [order], scenario, crash_at=n)
        assert result == "shipped"
"""

from lib_workflows.testing.crashing import CrashingDatabase, crashing_engine, survive
from lib_workflows.testing.faults import crashes, failing
from lib_workflows.testing.replaying import export_history, replay_history
from lib_workflows.testing.skipping import Environment, SkippingClock, environment
from lib_workflows.testing.tokens import GivenTokens

__all__ = [
    "CrashingDatabase",
    "Environment",
    "GivenTokens",
    "SkippingClock",
    "crashes",
    "crashing_engine",
    "environment",
    "export_history",
    "failing",
    "replay_history",
    "survive",
]
