"""Two things at one moment: whichever is written first has happened, and only that."""

import asyncio
import threading
import time
from datetime import timedelta

import pytest
from flows import address_changed, change_quantity

from lib_events.testing import wait_until
from lib_workflows import (
    Context,
    Engine,
    RunCancelled,
    StepFailed,
    WaitTimeout,
    arrivals,
    current_step,
    queries,
    step,
    workflow,
)
from lib_workflows.errors import CommandRefused
from lib_workflows.limits import Limits
from lib_workflows.run_state import TRANSITIONS, after


@workflow(name="in-time")
async def in_time(ctx: Context, seconds: float) -> str:
    try:
        return await ctx.wait_signal(address_changed, timeout=seconds)
    except WaitTimeout:
        return "late"


async def test_a_signal_and_its_timeout_never_both_happen(database_url):
    async with Engine.open(database_url, [in_time]) as engine:
        handles = await engine.start_many(in_time, [0.001 * (n % 10) for n in range(60)])
        await asyncio.gather(*(handle.signal(address_changed, "here") for handle in handles), return_exceptions=True)
        results = await asyncio.gather(*(handle.result(30) for handle in handles))
        assert set(results) <= {"here", "late"}
        for handle, result in zip(handles, results, strict=True):
            rows = await engine.database.read(queries.get_history, handle.id)
            assert [row.status for row in rows] == ["completed" if result == "here" else "failed"]


async def test_a_timed_out_thread_is_not_retried_while_it_lives(sqlite_url):
    running, most, proceed = [], [], threading.Event()

    @step(retries=1, timeout=timedelta(milliseconds=20))
    def stubborn() -> None:
        running.append(1)
        most.append(len(running))
        while not current_step().cancelled:
            time.sleep(0.001)
        proceed.wait(5)
        running.pop()

    @workflow(name="stubborn-flow")
    async def flow(ctx: Context) -> None:
        await ctx.step(stubborn)

    async with Engine.open(sqlite_url, [flow]) as engine:
        handle = await engine.start(flow)
        await wait_until(lambda: most)
        proceed.set()
        with pytest.raises(StepFailed, match="must end within"):
            await handle.result(20)
        assert most == [1, 1]


async def test_an_undo_waits_for_the_thread_it_undoes(sqlite_url):
    order, proceed = [], threading.Event()

    @step
    def slow() -> None:
        proceed.wait(10)
        order.append("done")

    def undo(result: None) -> None:
        order.append("undone")

    @workflow(name="undone-thread")
    async def flow(ctx: Context) -> None:
        await ctx.step(slow, undo=undo)

    async with Engine.open(sqlite_url, [flow]) as engine:
        handle = await engine.start(flow)
        await wait_until(lambda: any(e.running for e in engine.residence.executors.values()))
        await handle.cancel()
        await wait_until(lambda: _history(engine, handle.id, 2))
        proceed.set()
        with pytest.raises(RunCancelled):
            await handle.result(20)
        assert order == ["done", "undone"]


async def _history(engine, run_id, size):
    return len(await engine.database.read(queries.get_history, run_id)) >= size


async def test_two_threads_of_one_gather_run_side_by_side(sqlite_url):
    meet = threading.Barrier(2, timeout=10)

    @step
    def at_once(number: int) -> int:
        meet.wait()
        return number

    @workflow(name="side-by-side")
    async def flow(ctx: Context) -> list[int]:
        return await ctx.gather(ctx.step(at_once, 1), ctx.step(at_once, 2))

    async with Engine.open(sqlite_url, [flow]) as engine:
        assert await (await engine.start(flow)).result(20) == [1, 2]


def test_the_states_of_a_run_are_a_table():
    assert after("running", "rest") == "waiting"
    assert set(TRANSITIONS.values()) >= {"completed", "failed", "cancelled", "nondeterministic"}
    with pytest.raises(CommandRefused, match="status must be"):
        after("completed", "cancel")


async def test_a_message_that_meets_a_run_leaving_memory_is_heard_without_the_slow_poll(database_url, monkeypatch):
    monkeypatch.setattr(arrivals, "POLL_SECONDS", 60.0)

    @workflow(name="leaving")
    async def leaving(ctx: Context) -> None:
        for _ in range(10):
            call = await ctx.wait_update(change_quantity)
            await call.reply(call.value + 1)

    # At every look whatever rests is let go of: also the run that was just told of its message.
    async with Engine.open(database_url, [leaving], limits=Limits(idle_seconds=0.0)) as engine:
        handle = await engine.start(leaving)
        for number in range(10):
            assert await handle.update(change_quantity, number, timeout=20) == number + 1
