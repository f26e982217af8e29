"""Starts that come in a burst are one run, with the input of the last."""

import asyncio
from datetime import timedelta

import pytest
from queued_flows import fails, statuses, until

from lib_workflows import Context, DefinitionError, Engine, Principal, workflow
from lib_workflows.testing import environment

reports: list[int] = []


@workflow(name="report")
async def report(ctx: Context, number: int) -> int:
    reports.append(number)
    return number


async def test_starts_in_a_burst_are_one_run_with_the_last_input(database_url):
    reports.clear()
    wait, limit = timedelta(seconds=30), timedelta(seconds=100)
    async with environment(database_url, [report]) as env:

        async def start(number, key="of ada", **options):
            return await env.engine.start(report, number, delay=wait, debounce=key, **options)

        first = await start(1)
        await env.skip(timedelta(seconds=20))
        second = await start(2, tags={"last": "yes"})
        other = await start(9, "of bob")
        strangers = await start(7, principal=Principal("eve"))
        await env.skip(timedelta(seconds=20))
        assert (first.id, reports) == (second.id, [])
        assert await env.result(first) == 2
        assert len({first.id, other.id, strangers.id}) == 3
        assert sorted([await env.result(other), await env.result(strangers)]) == [7, 9]
        assert (await start(3)).id != first.id, "that one has ended"
        bounded = []
        for number in range(5):
            bounded.append(await start(number, "bounded", debounce_limit=limit))
            await env.skip(timedelta(seconds=20 if number < 4 else 0))
        began = env.now
        assert await env.result(bounded[0]) == 4, "the last that came within the limit"
        assert env.now - began < wait, "it would be the wait without a limit"
        assert {handle.id for handle in bounded} == {bounded[0].id}
        assert (await start(5, "bounded", debounce_limit=limit)).id != bounded[0].id


async def test_of_a_burst_from_everywhere_there_is_one_run(database_url):
    async with Engine.open(database_url, [report]) as engine:
        starts = (engine.start(report, n, delay=timedelta(hours=1), debounce="one") for n in range(50))
        handles = await asyncio.gather(*starts)
        assert len({handle.id for handle in handles}) == 1
        await engine.queues.pause("default")
        late = await engine.start(report, 1, delay=timedelta(milliseconds=1), debounce="two")
        again = await engine.start(report, 2, delay=timedelta(milliseconds=1), debounce="two")
        assert late.id == again.id, "due, and not begun"
        await engine.queues.resume("default")
        assert await late.result(10) == 2


async def test_what_was_debounced_can_fail_and_be_retried_beside_the_next(database_url):
    @workflow(name="fails")
    async def fails_at_first(ctx: Context, number: int) -> None:
        await ctx.step(fails, "always")

    moment = timedelta(milliseconds=1)
    async with Engine.open(database_url, [fails_at_first]) as engine:
        failed = await engine.start(fails_at_first, 1, delay=moment, debounce="one")
        await until(engine, [failed], "failed")
        await engine.queues.pause("default")
        waiting = await engine.start(fails_at_first, 2, delay=moment, debounce="one")
        await failed.retry()
        assert await statuses(engine, [failed, waiting]) == ["queued", "queued"]


async def test_a_debounce_that_makes_no_sense_is_refused(sqlite_url, subtests):
    async with Engine.open(sqlite_url, [report]) as engine:
        wait = timedelta(seconds=1)
        for options in ({}, {"delay": wait, "id": "x"}, {"delay": wait, "idempotency_key": "x"}):
            with subtests.test(str(options)), pytest.raises(DefinitionError, match="must be given with a delay"):
                await engine.start(report, 1, debounce="key", **options)
