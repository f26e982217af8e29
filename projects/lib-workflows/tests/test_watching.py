"""What the engine notices by itself, and what helps people who look: blocked loops, unclaimed runs, comparisons."""

import asyncio
import logging
import time
from dataclasses import replace
from datetime import timedelta

import pytest
from flows import FAST, address_changed, doubling

from lib_events.clock import SystemClock
from lib_events.event_log import read_after
from lib_events.lifecycle import running
from lib_events.testing import wait_until
from lib_workflows import Context, Engine, Signal, StepFailed, current_step, step, workflow
from lib_workflows.errors import PayloadVersionUnknown, RunNotFound
from lib_workflows.reading import queries
from lib_workflows.reading.comparison import compare_runs
from lib_workflows.testing import crashes, environment, failing, survive
from lib_workflows.workers.limits import Limits
from lib_workflows.workers.unclaimed import LATE_SECONDS, UnclaimedAlarm, unclaimed_runs


async def test_a_step_that_blocks_the_loop_is_told_of_with_its_line(sqlite_url, caplog):
    @step
    async def blocking() -> None:
        time.sleep(0.25)  # noqa: ASYNC251 - what is to be noticed

    @workflow(name="blocking")
    async def block(ctx: Context) -> None:
        await ctx.step(blocking)

    async with Engine.open(sqlite_url, [block], limits=Limits(blocked_seconds=0.05)) as engine:
        with caplog.at_level(logging.WARNING):
            await (await engine.start(block)).result(10)
            await wait_until(lambda: asyncio.sleep(0, "was blocked for" in caplog.text))
    assert "test_watching.py" in caplog.text
    assert "blocking; make it a `def` step" in caplog.text


async def test_runs_that_nobody_can_run_are_told_of_once(database_url, caplog):
    class LaterClock(SystemClock):
        looks = 0

        def micros(self):
            self.looks += 1
            return super().micros() + int(LATE_SECONDS * 2e6)

    async with Engine.open(database_url, [doubling]) as engine:
        claimed = await engine.start(doubling, 1, queue="quiet", delay=timedelta(milliseconds=1))
        assert await claimed.result(10) == 2
        request = engine.request(doubling, "1", id="old version")
        await engine.submit_many([replace(request, version=7, run_at=SystemClock().micros())])
        assert await engine.database.read(unclaimed_runs, SystemClock().micros() - 60_000_000) == []
        with caplog.at_level(logging.ERROR):
            clock = LaterClock()
            async with running(UnclaimedAlarm(engine.database, clock, look_seconds=0.005)):
                await wait_until(lambda: asyncio.sleep(0, "version 7" in caplog.text))
                seen = clock.looks
                await wait_until(lambda: asyncio.sleep(0, clock.looks > seen + 5))  # it looks again, and says nothing
    assert caplog.text.count("of workflow doubling version 7 in queue default have been due for") == 1
    assert "quiet" not in caplog.text


@workflow(name="gone")
async def gone(ctx: Context) -> str:
    return await ctx.wait_signal(address_changed)


async def test_a_run_that_was_woken_and_that_nobody_can_take_says_what_it_waits_for(database_url, caplog):
    async with Engine.open(database_url, [gone]) as engine:
        handle = await engine.start(gone)
        await wait_until(lambda: _is_waiting(handle))
    async with Engine.open(database_url, [doubling]) as engine:
        handle = engine.handle(handle.id)
        assert [wait["kind"] for wait in (await view_of(engine, handle)).waiting_for] == ["wait_signal"]
        await handle.signal(address_changed, "Elm Street")
        worker = (await view_of(engine, handle)).waiting_for[0]
        assert (worker["kind"], worker["name"]) == ("worker", "that holds gone version 1 and serves queue default")
        with caplog.at_level(logging.ERROR):
            async with running(UnclaimedAlarm(engine.database, SystemClock(), look_seconds=0.005)):
                await wait_until(lambda: asyncio.sleep(0, "version 1" in caplog.text))
    assert "1 run(s) of workflow gone version 1 in queue default have been due for a while" in caplog.text


async def _said(told, what):
    return what in await told()


async def _is_waiting(handle):
    return await handle.status() == "waiting"


async def view_of(engine, handle):
    return await engine.database.read(queries.get_run, handle.id)


@workflow(name="two-steps")
async def two_steps(ctx: Context, number: int) -> int:
    return await ctx.child(doubling, await ctx.child(doubling, number))


async def test_two_runs_are_compared_operation_by_operation(database_url):
    async with Engine.open(database_url, [two_steps, doubling]) as engine:
        for run_id, number in (("one", 1), ("same", 1), ("other", 2)):
            await (await engine.start(two_steps, number, id=run_id)).result(10)
        assert await engine.database.read(compare_runs, "one", "same") == []
        found = await engine.database.read(compare_runs, "one", "other")
        assert [(entry.operation, entry.fields) for entry in found] == [("1", ("output",)), ("2", ("output",))]
        with pytest.raises(RunNotFound):
            await engine.database.read(compare_runs, "one", "nobody")


def test_a_payload_of_a_newer_release_is_refused_by_its_version():
    with pytest.raises(PayloadVersionUnknown, match="version 1, got version 3"):
        doubling.decode_input("@3:c2VjcmV0")


# The testing kit's faults


@step(retries=3, backoff=FAST)
async def fetch(number: int) -> int:
    fetched.append(number)
    return number


@step(retries=3, backoff=FAST)
def fetch_in_a_thread(number: int) -> int:
    fetched.append(number)
    return number


fetched = []


@workflow(name="fetching")
async def fetching(ctx: Context, number: int) -> list[int]:
    return [await ctx.step(fetch, number), await ctx.step(fetch_in_a_thread, number)]


@pytest.mark.parametrize("tried", [fetch, fetch_in_a_thread], ids=["async", "thread"])
@pytest.mark.parametrize(("after", "effects"), [(False, 2), (True, 4)], ids=["before", "after"])
async def test_steps_fail_as_told(sqlite_url, tried, after, effects):
    fetched.clear()
    async with environment(sqlite_url, [fetching]) as env:
        with failing(tried, ConnectionError("down"), TimeoutError(), after=after) as calls:
            assert await env.result(await env.engine.start(fetching, 7)) == [7, 7]
    assert calls == [(7,)] * 3
    assert fetched == [7] * effects
    with failing(tried, *[LookupError()] * 4), pytest.raises(StepFailed):
        async with environment(sqlite_url, [fetching]) as env:
            await env.result(await env.engine.start(fetching, 7))


async def test_a_run_survives_several_crashes_drawn_by_a_seed(database_url):
    assert crashes(7) == crashes(7) != crashes(8)

    async def scenario(engine):
        return await (await engine.start(two_steps, 1, id="often")).result(20)

    result, _ = await survive(
        database_url, [two_steps, doubling], scenario, crash_at=crashes(7, lives=4, within=4), lease_seconds=0.2
    )
    assert result == 4


parcel_left = Signal("parcel-left", str)


@workflow(name="waits-twice")
async def waits_twice(ctx: Context) -> None:
    for _ in range(2):
        await ctx.wait_signal(address_changed)
    await ctx.wait_signal(parcel_left)


async def test_whoever_follows_a_run_is_told_when_it_waits_for_something_else(sqlite_url):
    async with Engine.open(sqlite_url, [waits_twice]) as engine:
        handle = await engine.start(waits_twice)

        async def waits_told():
            page = await engine.database.read(lambda c: read_after(c, 0, types=["evs.run.waiting"]))
            return [placed.event.data["waiting_for"][0]["name"] for placed in page.events]

        await wait_until(waits_told)
        for _ in range(2):
            await handle.signal(address_changed, "Elm Street")
        await wait_until(lambda: _said(waits_told, "parcel-left"))
        assert await waits_told() == ["address-changed", "parcel-left"]  # the same again is nothing new


async def test_what_a_run_waits_for_is_told_in_few_entries_however_much_it_is(sqlite_url):
    @workflow(name="patient")
    async def patient(ctx: Context) -> None:
        sleeps = [ctx.sleep(1_000 + number) for number in range(60)]
        await ctx.gather(*sleeps, *(ctx.child(sleeper) for _ in range(200)))

    @workflow(name="sleeper")
    async def sleeper(ctx: Context) -> None:
        await ctx.sleep(1_000)

    async with Engine.open(sqlite_url, [patient, sleeper]) as engine:
        handle = await engine.start(patient)

        async def waited_for():
            run = await engine.database.read(queries.get_run, handle.id)
            return run.waiting_for if run.status == "waiting" else None

        first, *others, last = await wait_until(waited_for)
        assert first == {"kind": "child", "name": "sleeper", "until": None, "count": 200}
        assert [other["kind"] for other in others] == ["sleep"] * 49
        assert last == {"kind": "others", "name": "11 others", "until": None, "count": 11}


async def test_who_works_again_after_it_was_out_of_memory_waits_for_nothing(database_url):
    go_on = asyncio.Event()

    @step
    async def works() -> None:
        await go_on.wait()

    @workflow(name="works-then")
    async def works_then(ctx: Context) -> None:
        await ctx.wait_signal(address_changed)
        await ctx.step(works)

    async with Engine.open(database_url, [works_then]) as engine:
        handle = await engine.start(works_then)
        await wait_until(lambda: _is_waiting(handle))
    async with Engine.open(database_url, [works_then]) as engine:
        handle = engine.handle(handle.id)
        await handle.signal(address_changed, "Elm Street")
        await wait_until(lambda: engine.residence.executors and engine.residence.executors[handle.id].running)
        view = await view_of(engine, handle)
        assert (view.status, view.waiting_for) == ("running", [])
        go_on.set()
        await handle.result(10)


@step
def beating() -> str:
    current_step().heartbeat(1)
    return "done"


async def test_who_watches_progress_and_fails_fails_no_run(sqlite_url, caplog):
    @workflow(name="watched")
    async def watched(ctx: Context) -> str:
        ctx.progress(0.5)
        return await ctx.step(beating)

    def fail(run_id, fraction, text, detail):
        raise LookupError("nobody is there")

    async with Engine.open(sqlite_url, [watched], on_progress=fail) as engine:
        assert await (await engine.start(watched)).result(10) == "done"
    assert caplog.text.count("on_progress of the engine must not fail") == 2


async def test_progress_is_told_from_the_first_line_on_and_never_by_a_replay(sqlite_url):
    told = []

    @workflow(name="telling")
    async def telling(ctx: Context) -> str:
        ctx.progress(0.1, "begun")
        address = await ctx.wait_signal(address_changed)
        ctx.progress(0.9, "heard")
        return address

    def hear(run_id, fraction, text, detail):
        told.append((fraction, text))

    limits = Limits(idle_seconds=0)
    async with Engine.open(sqlite_url, [telling], on_progress=hear, limits=limits) as engine:
        handle = await engine.start(telling)
        assert engine.progress[handle.id] == (0.1, "begun")
        await wait_until(lambda: asyncio.sleep(0, not engine.residence.executors))  # it has left memory
        await handle.signal(address_changed, "Elm Street")
        assert await handle.result(10) == "Elm Street"
    assert told == [(0.1, "begun"), (0.9, "heard")]
