"""A parked run that is cancelled undoes what its code still says how to undo, and tells what it does not."""

import asyncio

import pytest
from flows import address_changed, calls
from sqlalchemy import func, select

from lib_events.database import Connection
from lib_events.testing import wait_until
from lib_workflows import Context, Engine, RunCancelled, step, workflow
from lib_workflows.errors import Nondeterministic
from lib_workflows.reading import queries
from lib_workflows.runs import commands
from lib_workflows.tables import messages, runs
from lib_workflows.testing import survive

LEASE_SECONDS = 0.3


@step
async def take(what: str) -> str:
    calls.append(("take", what))
    return what


@step
async def hangs(what: str) -> str:
    calls.append(("take", what))
    await asyncio.Event().wait()
    return what


async def give_back(result: str | None, what: str) -> None:
    calls.append(("give back", what, result))


def enter(connection: Connection, what: str) -> str:
    return what


def strike_out(connection: Connection, entered: str | None, what: str) -> None:
    calls.append(("strike out", what, entered))


@workflow(name="inner")
async def inner(ctx: Context, what: str) -> str:
    await ctx.step(take, what, undo=give_back)
    return await ctx.wait_signal(address_changed)


async def book(ctx: Context, car: str) -> None:
    await ctx.step(take, "flight", undo=give_back)
    await ctx.transaction(enter, "room", undo=strike_out)
    await ctx.gather(
        ctx.child(inner, "tour", undo=give_back),
        ctx.step(hangs, "seat", undo=give_back),
        drive(ctx, car),
        ctx.approval("pay", text="?", to="user:u1"),
    )


async def drive(ctx: Context, car: str) -> None:
    await ctx.sleep(0.001)
    await ctx.step(take, car, undo=give_back)


@workflow(name="journey")
async def journey(ctx: Context) -> None:
    await book(ctx, "car")


@workflow(name="journey")
async def journey_without_sleep(ctx: Context) -> None:
    """Its third branch does not fit."""

    async def drive_at_once() -> None:
        await ctx.step(take, "car", undo=give_back)

    await ctx.step(take, "flight", undo=give_back)
    await ctx.transaction(enter, "room", undo=strike_out)
    await ctx.gather(ctx.child(inner, "tour", undo=give_back), ctx.step(hangs, "seat", undo=give_back), drive_at_once())


@workflow(name="journey")
async def another_journey(ctx: Context) -> None:
    """Nothing behind its first step fits."""
    await ctx.step(take, "flight", undo=give_back)
    await ctx.sleep(3600)


async def under_way(engine, run_id="r"):
    """Until everything is booked that can be."""
    taken = {("take", what) for what in ("flight", "tour", "seat", "car")}
    await wait_until(lambda: taken <= {*calls})
    await wait_until(lambda: has_rows(engine, run_id, 4))
    await wait_until(lambda: engine.database.read(waits_for_a_signal, run_id))


async def has_rows(engine, run_id, count):
    return len(await engine.database.read(queries.get_history, run_id)) == count


def waits_for_a_signal(connection, run_id):
    children = select(func.count()).where(runs.c.parent == run_id, runs.c.status == "waiting")
    return connection.scalar(children)


async def parked(url, flows):
    """A run that is parked by the code of `flows`."""
    async with Engine.open(url, [journey, inner], lease_seconds=LEASE_SECONDS) as engine:
        await engine.start(journey, id="r")
        await under_way(engine)
        await engine.abandon()
    calls.clear()
    async with Engine.open(url, flows, lease_seconds=LEASE_SECONDS) as engine:
        with pytest.raises(Nondeterministic):
            await engine.handle("r").result(10)


async def cancelled(engine):
    handle = engine.handle("r")
    if await handle.status() == "nondeterministic":
        await handle.cancel("enough")
    with pytest.raises(RunCancelled, match="enough"):
        await handle.result(10)
    children = select(runs.c.status).where(runs.c.parent == "r")
    await wait_until(lambda: engine.database.read(lambda c: c.scalars(children).all() == ["cancelled"]))
    rows = await engine.database.read(queries.get_history, "r")
    page = await engine.database.read(lambda c: queries.list_approvals(c, run="r"))
    assert [approval.status for approval in page.items] == ["expired"]
    return {row.operation: row.undo for row in rows if row.undo is not None}, rows


async def test_what_the_code_still_says_how_to_undo_is_undone(database_url):
    flows = [journey_without_sleep, inner]
    await parked(database_url, flows)
    async with Engine.open(database_url, flows, lease_seconds=LEASE_SECONDS) as engine:
        undos, rows = await cancelled(engine)
        (line,) = (await engine.database.read(lambda c: queries.list_logs(c, "r"))).items
    assert "operation 3/3/2 must be undone by give_back" in line.message
    assert set(calls) == {
        ("strike out", "room", "room"),
        ("give back", "flight", "flight"),
        ("give back", "seat", None),
        ("give back", "tour", "tour"),
    }
    assert len(calls) == 4
    assert {operation: undo.status for operation, undo in undos.items()} == {
        "1": "undone",
        "2": "undone",
        "3/2/1": "undone",
        "3/3/2": "failed",
    }
    assert "operation 3/3/2 must be undone by give_back" in undos["3/3/2"].error.message
    assert [row.operation for row in rows if row.kind == "undo"] == ["3/3/2/undo", "3/2/1/undo", "2/undo", "1/undo"]


async def test_what_it_does_not_say_is_told_and_the_children_are_cancelled_all_the_same(database_url):
    flows = [another_journey, inner]
    await parked(database_url, flows)
    async with Engine.open(database_url, flows, lease_seconds=LEASE_SECONDS) as engine:
        undos, _ = await cancelled(engine)
    assert set(calls) == {("give back", "flight", "flight"), ("give back", "tour", "tour")}
    assert {operation: undo.status for operation, undo in undos.items()} == {
        "1": "undone",
        "2": "failed",
        "3/3/2": "failed",
    }


@workflow(name="journey")
async def short_journey(ctx: Context) -> None:
    """It has ended where its history goes on."""
    await ctx.step(take, "flight", undo=give_back)


@workflow(name="journey")
async def failing_journey(ctx: Context) -> None:
    """It undoes where its history goes on."""
    await ctx.step(take, "flight", undo=give_back)
    await ctx.transaction(enter, "room", undo=strike_out)
    raise LookupError("no seat")


@pytest.mark.parametrize("changed", [short_journey, failing_journey], ids=["has ended", "undoes"])
async def test_a_function_that_has_ended_where_its_history_goes_on_is_undone_too(database_url, changed):
    flows = [changed, inner]
    await parked(database_url, flows)
    async with Engine.open(database_url, flows, lease_seconds=LEASE_SECONDS) as engine:
        undos, _ = await cancelled(engine)
    assert calls.count(("give back", "flight", "flight")) == 1
    assert (undos["1"].status, undos["3/3/2"].status) == ("undone", "failed")
    assert undos["2"].status == ("undone" if changed is failing_journey else "failed")


async def test_all_of_it_is_undone_once_the_code_fits_again(database_url):
    await parked(database_url, [another_journey, inner])
    async with Engine.open(database_url, [journey, inner], lease_seconds=LEASE_SECONDS) as engine:
        undos, _ = await cancelled(engine)
    assert {undo.status for undo in undos.values()} == {"undone"}
    assert ("give back", "car", "car") in calls


async def test_a_cancellation_that_comes_before_a_run_is_parked_waits_for_the_code_to_be_mended(database_url):
    async with Engine.open(database_url, [journey, inner], lease_seconds=LEASE_SECONDS) as engine:
        await engine.start(journey, id="r")
        await under_way(engine)
        await engine.abandon()
    async with Engine.open(database_url, [another_journey, inner], works=False) as engine:
        await engine.handle("r").cancel("enough")
    calls.clear()
    async with Engine.open(database_url, [another_journey, inner], lease_seconds=LEASE_SECONDS) as engine:
        with pytest.raises(Nondeterministic):
            await engine.handle("r").result(10)
        assert not calls
    async with Engine.open(database_url, [journey, inner], lease_seconds=LEASE_SECONDS) as engine:
        await engine.handle("r").retry()
        undos, _ = await cancelled(engine)
        assert {undo.status for undo in undos.values()} == {"undone"}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("after", [False, True], ids=["before the commit", "after the commit"])
async def test_a_crash_at_any_commit_undoes_and_tells_the_same(database_url, after, crash_places):
    flows = [small_journey_changed]
    for number in crash_places.of_about(6):
        run_id = f"crash-{number}"
        async with Engine.open(database_url, [small_journey], lease_seconds=LEASE_SECONDS) as engine:
            await engine.start(small_journey, id=run_id)
            await wait_until(lambda run_id=run_id: has_rows(engine, run_id, 3))
        async with Engine.open(database_url, flows, lease_seconds=LEASE_SECONDS) as engine:
            await engine.database.transact(commands.wake, run_id)
            with pytest.raises(Nondeterministic):
                await engine.handle(run_id).result(10)

        async def scenario(engine, run_id=run_id):
            handle = engine.handle(run_id)
            if await handle.status() == "nondeterministic":
                await handle.cancel("enough")
            with pytest.raises(RunCancelled):
                await handle.result(10)
            return await engine.database.read(queries.get_history, run_id)

        calls.clear()
        rows, crashed = await survive(
            database_url, flows, scenario, crash_at=number, after=after, lease_seconds=LEASE_SECONDS
        )
        assert [(row.operation, row.status) for row in rows][3:] == [
            ("cancel", "completed"),
            ("undoing", "completed"),
            ("3/undo", "failed"),
            ("1/undo", "completed"),
        ]
        assert ("strike out", "room", None) not in calls
        if not crashed:
            break
    assert number > 3


@workflow(name="small-journey")
async def small_journey(ctx: Context) -> None:
    await ctx.transaction(enter, "room", undo=strike_out)
    await ctx.step(take, "nothing to undo")
    await ctx.step(take, "car", undo=give_back)
    await ctx.wait_signal(address_changed)


@workflow(name="small-journey")
async def small_journey_changed(ctx: Context) -> None:
    await ctx.transaction(enter, "room", undo=strike_out)
    await ctx.wait_signal(address_changed)


async def test_nothing_that_was_asked_for_is_left_in_its_inbox(sqlite_url):
    flows = [another_journey, inner]
    await parked(sqlite_url, flows)
    async with Engine.open(sqlite_url, flows) as engine:
        await cancelled(engine)
        left = select(func.count()).select_from(messages).where(messages.c.run == "r")
        assert await engine.database.read(lambda c: c.scalar(left)) == 0
