"""A crash at any commit: after reopening, the result is right and exactly-once is exactly once.

At which ones is drawn for each run of the tests (`crash_places`).
"""

import contextlib

import flows
import pytest
from flows import Order, address_changed, everything, forever
from scenarios import WORKFLOWS, allow_for_the_end, asked, play_everything

from lib_events.testing import wait_until
from lib_workflows import Context, Engine, RunCancelled, WaitTimeout, workflow
from lib_workflows.errors import Cancelled, CommandRefused
from lib_workflows.reading import queries
from lib_workflows.runs import commands
from lib_workflows.testing import export_history, replay_history, survive

LEASE_SECONDS = 0.2


async def look(engine, run_id="the-run"):
    stock = await engine.database.read(flows.stock_of, run_id)
    history = await engine.database.read(queries.get_history, run_id)
    run = await engine.database.read(queries.get_run, run_id)
    children = await engine.database.read(queries.list_runs, queries.RunFilter(parent=run_id))
    return stock, history, run, children.items


async def play_and_look(engine, run_id="the-run", **options):
    result = await play_everything(engine, run_id, **options)
    return result, await look(engine, run_id)


async def uninterrupted(url, **options):
    async with Engine.open(url, WORKFLOWS) as engine:
        return await play_and_look(engine, **options)


def without_uuid(result):
    return {k: v for k, v in result.items() if k != "uuid"} if isinstance(result, dict) else result


def shape(history):
    return sorted((e.operation, e.kind, e.name, e.status, str(e.output)) for e in history)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("after", [False, True], ids=["before the commit", "after the commit"])
@pytest.mark.parametrize("approved", [True, False], ids=["completes", "is undone"])
async def test_a_crash_at_any_commit_changes_nothing(database_url, after, approved, crash_places):
    expected, (stock, history, _, children) = await uninterrupted(database_url, approved=approved)
    for number in crash_places.of_about(20):
        run_id = f"crash-{number}"
        (result, (found_stock, found_history, run, found_children)), crashed = await survive(
            database_url,
            WORKFLOWS,
            lambda engine, run_id=run_id: play_and_look(engine, run_id, approved=approved),
            crash_at=number,
            after=after,
            lease_seconds=LEASE_SECONDS,
        )
        assert without_uuid(result) == without_uuid(expected), f"crash at {number}"
        assert found_stock == stock, f"crash at {number}: the transactions ran exactly once"
        assert shape(found_history) == shape(history), f"crash at {number}"
        assert run.status == ("completed" if approved else "failed")
        assert [c.status for c in found_children] == ["completed"] * len(children)
        if not crashed:
            break
    assert number > 15


@pytest.mark.timeout(300)
@pytest.mark.parametrize("after", [False, True], ids=["before the commit", "after the commit"])
async def test_a_crash_at_any_commit_of_a_cancellation_still_undoes(database_url, after, crash_places):
    for number in crash_places.of_about(8):
        run_id = f"crash-{number}"

        async def scenario(engine, run_id=run_id):
            await engine.database.transact(flows.make_stock)
            handle = await engine.start(forever, id=run_id)
            await wait_until(lambda: engine.database.read(flows.stock_of, run_id))
            await allow_for_the_end(handle.cancel())
            with pytest.raises(RunCancelled):
                await handle.result(20)
            return await look(engine, run_id)

        (stock, history, run, _), crashed = await survive(
            database_url, WORKFLOWS, scenario, crash_at=number, after=after, lease_seconds=LEASE_SECONDS
        )
        assert run.status == "cancelled"
        assert stock == [-1, 1], f"crash at {number}"
        assert [e.operation for e in history] == ["1", "2", "cancel", "undoing", "2/undo", "1/undo"]
        if not crashed:
            break


async def test_an_interrupted_and_an_uninterrupted_run_have_the_same_history(database_url):
    _, (_, whole, _, _) = await uninterrupted(database_url)
    async with Engine.open(database_url, WORKFLOWS) as engine:
        handle = await engine.start(everything, Order(id="o1", amount=7), id="interrupted")
        await wait_until(lambda: asked(engine, handle.id))
    for _ in range(2):
        async with Engine.open(database_url, WORKFLOWS) as engine:
            assert (await engine.database.read(queries.get_run, "interrupted")).status == "waiting"
    async with Engine.open(database_url, WORKFLOWS) as engine:
        await play_everything(engine, "interrupted")
        _, history, _, _ = await look(engine, "interrupted")
    assert shape(history) == shape(whole)


@workflow(name="two-letters")
async def two_letters(ctx: Context) -> list[str]:
    return [await ctx.wait_signal(address_changed), await ctx.wait_signal(address_changed)]


def send_both(connection, run_id):
    for address in ("here", "there"):
        commands.send_signal(connection, run_id, address_changed.name, f'"{address}"')


@pytest.mark.timeout(120)
@pytest.mark.parametrize("after", [False, True], ids=["before the commit", "after the commit"])
async def test_a_crash_between_two_messages_that_came_together_loses_none(database_url, after, crash_places):
    for number in crash_places.of_about(6):
        run_id, sent = f"crash-{number}", []

        async def scenario(engine, run_id=run_id, sent=sent):
            handle = await engine.start(two_letters, id=run_id)
            if not sent and await wait_until(lambda: rests(engine, run_id)) == "waiting":
                with contextlib.suppress(CommandRefused):  # sent before the crash, they have ended the run meanwhile
                    await engine.database.transact(send_both, run_id)
                sent.append(True)
            return await handle.result(10)

        result, crashed = await survive(
            database_url, [two_letters], scenario, crash_at=number, after=after, lease_seconds=LEASE_SECONDS
        )
        assert result == ["here", "there"], f"crash at {number}"
        if not crashed:
            break


async def rests(engine, run_id):
    status = (await engine.database.read(queries.get_run, run_id)).status
    return None if status == "running" else status


seen_at: list[str] = []


@workflow(name="looks-at-the-clock")
async def look_at_the_clock(ctx: Context) -> None:
    """Ask for the time after each thing that ends in a way of its own."""

    def look() -> None:
        seen_at.append(ctx.now().isoformat())

    look()
    await ctx.transaction(flows.reserve, ctx.run_id, 1)
    look()
    await ctx.step(flows.in_a_thread, 1)
    look()
    with contextlib.suppress(WaitTimeout):
        await ctx.wait_signal(address_changed, timeout=0.01)
    look()
    try:
        await ctx.wait_signal(address_changed)
    finally:
        look()
        await ctx.step(flows.double, 1)
        look()


async def test_a_replay_sees_the_same_times_as_the_first_life(database_url):
    seen_at.clear()
    async with Engine.open(database_url, [look_at_the_clock]) as engine:
        await engine.database.transact(flows.make_stock)
        handle = await engine.start(look_at_the_clock)
        await wait_until(lambda: len(seen_at) == 4)
        await handle.cancel()
        with pytest.raises(RunCancelled):
            await handle.result(10)
        live = [*seen_at]
        seen_at.clear()
        exported = await export_history(engine, handle.id)
    with pytest.raises(Cancelled):
        replay_history(look_at_the_clock, exported)
    assert seen_at == live


@workflow(name="takes-an-hour")
async def take_an_hour(ctx: Context) -> None:
    await ctx.sleep(3_600)


@workflow(name="has-no-time")
async def have_no_time(ctx: Context, how: str) -> str:
    """Wait for a child no longer than for a moment."""
    if how == "races":
        await ctx.race(ctx.sleep(0.02), ctx.child(take_an_hour))
        return "in time"
    with contextlib.suppress(WaitTimeout):
        async with ctx.timeout(0.02):
            await ctx.child(take_an_hour)
    return "in time"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("after", [False, True], ids=["before the commit", "after the commit"])
@pytest.mark.parametrize("how", ["races", "bounds it"])
async def test_a_crash_before_a_child_hears_that_nobody_waits_for_it_lets_nobody_wait(
    database_url, how, after, crash_places
):
    for number in crash_places.of_about(9):
        run_id = f"crash-{number}"

        async def scenario(engine, run_id=run_id):
            handle = await engine.start(have_no_time, how, id=run_id)
            return await handle.result(15)

        result, crashed = await survive(
            database_url,
            [have_no_time, take_an_hour],
            scenario,
            crash_at=number,
            after=after,
            lease_seconds=LEASE_SECONDS,
        )
        assert result == "in time", f"crash at {number}"
        if not crashed:
            break
    assert number > 5
