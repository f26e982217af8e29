"""Two things at one moment: whichever is written first has happened, and only that."""

import asyncio
import contextlib
import threading
import time
from datetime import timedelta

import pytest
from flows import Order, OrderShipped, address_changed, change_quantity, doubling

from lib_events.database import Connection
from lib_events.event_log import read_after
from lib_events.testing import wait_until
from lib_workflows import Context, Engine, RunCancelled, StepFailed, WaitTimeout, current_step, step, workflow
from lib_workflows.authoring.retry import Backoff
from lib_workflows.errors import CommandRefused
from lib_workflows.reading import queries
from lib_workflows.runs import commands
from lib_workflows.runs.lifecycle_events import RUN_CANCELLED, RUN_QUEUED
from lib_workflows.runs.state import TRANSITIONS, after
from lib_workflows.testing import environment
from lib_workflows.workers import arrivals
from lib_workflows.workers.limits import Limits


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


@workflow(name="told-and-cancelled")
async def told_and_cancelled(ctx: Context, then: str) -> None:
    await ctx.wait_signal(address_changed)
    match then:
        case "publish":
            await ctx.publish(OrderShipped, Order(id="o1", amount=1))
        case "start":
            await ctx.start(doubling, 1)
        case "tags":
            await ctx.set_tags({"state": "shipped"})
        case "view":
            await ctx.set_view("state", "shipped")


def signal_and_cancel(connection, run_id):
    commands.send_signal(connection, run_id, address_changed.name, '"here"')
    commands.cancel(connection, run_id)


async def test_what_ends_at_once_is_not_done_when_a_cancellation_comes_first(database_url, subtests):
    """Signal and cancellation are heard in one turn: what the signal leads to has begun when the run is cancelled."""
    async with Engine.open(database_url, [told_and_cancelled, doubling]) as engine:
        for then in ("publish", "start", "tags", "view"):
            with subtests.test(then):
                handle = await engine.start(told_and_cancelled, then)
                await engine.database.transact(signal_and_cancel, handle.id)
                with pytest.raises(RunCancelled):
                    await handle.result(20)
                rows = await engine.database.read(queries.get_history, handle.id)
                assert [row.kind for row in rows] == ["wait_signal", "cancel"]
                assert (await engine.database.read(queries.get_run, handle.id)).tags == {}
                assert await handle.view("state") is None
        await wait_until(lambda: _all_placed(engine, 4))
        page = await engine.database.read(lambda connection: read_after(connection, 0))
        told = {(placed.event.type, placed.event.extensions.get("workflow")) for placed in page.events}
        assert not [each for each in told if each[0] in (OrderShipped.name, RUN_QUEUED.name)]


async def _all_placed(engine, cancelled):
    page = await engine.database.read(lambda connection: read_after(connection, 0))
    return [placed.event.type for placed in page.events].count(RUN_CANCELLED.name) == cancelled


async def test_an_update_sent_twice_at_once_is_one(database_url):
    @workflow(name="takes-one")
    async def takes_one(ctx: Context) -> int:
        call = await ctx.wait_update(change_quantity)
        await call.reply(call.value + 1)
        return call.value

    def send(connection, run_id):
        commands.send_update(connection, run_id, change_quantity.name, "4", update_id=f"update-{run_id}")

    async with Engine.open(database_url, [takes_one]) as engine:
        for _ in range(10):
            handle = await engine.start(takes_one)
            await asyncio.gather(*(engine.database.transact(send, handle.id) for _ in range(4)))
            assert await handle.result(20) == 4
            assert await engine.results.wait_update(f"update-{handle.id}") == ("completed", "5")


async def test_of_two_answers_to_an_update_the_first_counts(database_url):
    @workflow(name="answers-twice")
    async def answers_twice(ctx: Context) -> None:
        call = await ctx.wait_update(change_quantity)
        await ctx.gather(call.reply(1), call.reply(2), call.reject("three"))

    async with Engine.open(database_url, [answers_twice]) as engine:
        handle = await engine.start(answers_twice)
        assert await handle.update(change_quantity, 0, timeout=20) == 1


async def until_due(ctx: Context, how: str) -> None:
    match how:
        case "an approval":
            await ctx.approval("ship", text="Ship it?", to="user:u1", timeout=3600)
        case "an event":
            await ctx.wait_event(OrderShipped, timeout=3600)
        case "a signal":
            await ctx.wait_signal(address_changed, timeout=3600)


@pytest.mark.parametrize("how", ["an approval", "an event", "a signal", "the next attempt"])
async def test_a_time_that_comes_while_a_run_leaves_memory_is_noticed_without_the_slow_poll(
    database_url, monkeypatch, how
):
    monkeypatch.setattr(arrivals, "POLL_SECONDS", 60.0)
    tries = []

    @step(retries=1, backoff=Backoff(timedelta(minutes=5)))
    async def fails_once() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError("not yet")

    @workflow(name="waits-for-its-time")
    async def waits_for_its_time(ctx: Context) -> str:
        if how == "the next attempt":
            await ctx.step(fails_once)
        with contextlib.suppress(WaitTimeout):
            await until_due(ctx, how)
        return "in time"

    async with environment(database_url, [waits_for_its_time]) as env:
        handle, residence = await env.engine.start(waits_for_its_time), env.engine.residence
        await wait_until(lambda: residence.executors[handle.id].is_resting)
        leaving = residence.executors[handle.id]
        residence.let_go(leaving)
        env.clock.skip_to(leaving.wake_at())
        residence.timers.fire_due()
        assert await handle.result(20) == "in time"
        assert residence.executors.get(handle.id) is not leaving
        assert len(tries) == (2 if how == "the next attempt" else 0)


async def test_a_step_that_was_stopped_between_its_attempts_is_not_tried_again(database_url):
    """Its pause ends while another branch, stopped at the same time, cleans up in a transaction."""
    happened: list[str] = []

    @step(retries=1, backoff=Backoff(timedelta(minutes=5)))
    async def flaky() -> None:
        happened.append(f"attempt {current_step().attempt}")
        raise ConnectionError("away")

    async def undo_flaky(_result: None) -> None:
        happened.append("undone")

    def book(connection: Connection) -> None:
        """Take no time at all."""

    def clean_up(connection: Connection) -> None:
        asyncio.get_running_loop().call_soon(the_pause_ends)

    @workflow(name="stopped-in-a-pause")
    async def stopped_in_a_pause(ctx: Context) -> None:
        async def fails() -> None:
            await ctx.wait_signal(address_changed)
            await ctx.transaction(book)
            raise ValueError("by itself")

        async def cleans_up() -> None:
            try:
                await ctx.sleep(timedelta(days=1))
            finally:
                await ctx.transaction(clean_up)

        await ctx.gather(fails(), ctx.step(flaky, undo=undo_flaky), cleans_up())

    async with environment(database_url, [stopped_in_a_pause]) as env:

        def the_pause_ends() -> None:
            env.clock.skip_to(env.clock.micros() + 3_600_000_000)
            env.engine.residence.timers.fire_due()

        handle = await env.engine.start(stopped_in_a_pause)
        await env.until_resting()
        await handle.signal(address_changed, "go")
        with pytest.raises(ValueError, match="by itself"):
            await handle.result(10)
    assert happened == ["attempt 1", "undone"]
