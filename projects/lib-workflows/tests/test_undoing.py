"""What of a run can be undone, is being undone and has been is visible at any moment."""

import asyncio
import contextlib
import threading
from datetime import timedelta

import pytest
from flows import address_changed
from pydantic import BaseModel, Field
from sqlalchemy import select

from lib_events.database import Connection
from lib_events.event_log import read_after
from lib_events.statement import Write
from lib_events.testing import wait_until
from lib_workflows import Context, Engine, NonRetryable, StepFailed, step, workflow
from lib_workflows.authoring.retry import Backoff
from lib_workflows.errors import PayloadInvalid, RunCancelled
from lib_workflows.reading import queries
from lib_workflows.runs import commands, rewind
from lib_workflows.runs.commands import wake
from lib_workflows.runs.lifecycle_events import RUN_UNDOING
from lib_workflows.statements import SET_VIEW
from lib_workflows.tables import attempts as attempts_table
from lib_workflows.testing import environment, export_history, replay_history
from lib_workflows.workers.limits import Limits


class Gate:
    """Undos wait here until a test opens it."""

    def __init__(self):
        self.close()

    def close(self):
        self.open = asyncio.Event()
        self.attempts = 0


gate = Gate()


@pytest.fixture(autouse=True)
async def _closed():
    gate.close()


class SoldOut(Exception):
    pass


class Shipment(BaseModel):
    weight: int = Field(ge=0)


@step
async def take(what: str) -> str:
    return what


@step(errors=(SoldOut,))
async def sell_out(what: str) -> None:
    raise SoldOut(what)


async def give_back(result: str | None, what: str) -> None:
    await gate.open.wait()


async def cannot_give_back(result: str | None, what: str) -> None:
    raise NonRetryable("it is gone")


@step(
    name="give-back-later",
    retries=10_000,
    backoff=Backoff(timedelta(milliseconds=1), maximum=timedelta(milliseconds=1)),
)
async def give_back_later(result: str | None, what: str) -> None:
    gate.attempts += 1
    if not gate.open.is_set():
        raise ConnectionError("the shop is closed")


def book(connection: Connection, what: str) -> str:
    return what


def unbook(connection: Connection, result: str | None, what: str) -> None:
    pass


@workflow(name="baking")
async def baking(ctx: Context, what: str) -> str:
    """Take the eggs."""
    return await ctx.step(take, what, undo=give_back)


@workflow(name="shopping")
async def shopping(ctx: Context, last: str) -> str:
    """Take this and that, then fail."""
    await ctx.step(take, "milk", undo=give_back)
    await ctx.transaction(book, "table", undo=unbook)
    await ctx.step(take, "bread")
    await ctx.step(take, "fish", undo=cannot_give_back)
    await ctx.child(baking, "cake", undo=give_back)
    try:
        await ctx.step(sell_out, "wine", undo=give_back)
    except SoldOut:
        if last == "keep":
            return "kept"
    raise ValueError(f"no {last}")


@workflow(name="patient")
async def patient(ctx: Context) -> None:
    """Take something that is hard to give back, and fail."""
    await ctx.step(take, "milk", undo=give_back_later)
    raise ValueError("no wine")


@workflow(name="side-by-side")
async def side_by_side(ctx: Context) -> None:
    """Begin two things at once: the one that began later is undone first, whichever ended first."""
    await ctx.gather(ctx.step(take, "a", undo=give_back), ctx.step(take, "b", undo=give_back))
    raise ValueError("no")


@workflow(name="waits")
async def waits(ctx: Context) -> None:
    """Take something and wait."""
    await ctx.step(take, "milk", undo=give_back)
    await ctx.sleep(timedelta(days=1))


WORKFLOWS = [waits, baking, shopping, patient, side_by_side]


@pytest.fixture
async def engine(database_url):
    async with Engine.open(database_url, WORKFLOWS) as engine:
        yield engine


async def history_of(engine, run_id):
    return await engine.database.read(queries.get_history, run_id)


async def undos_of(engine, run_id):
    return {e.operation: (e.undo.name, e.undo.status) for e in await history_of(engine, run_id) if e.undo}


async def events_until_the_end(engine, run_id):
    page = await engine.database.read(lambda c: read_after(c, 0, subject=run_id))
    found = [placed.event for placed in page.events]
    return found if found and found[-1].type == "evs.run.failed" else None


async def until_undo(engine, run_id, operation, status):
    async def look():
        return (await undos_of(engine, run_id)).get(operation, ("", ""))[1] == status

    await wait_until(look)


async def test_a_run_that_did_not_fail_says_what_could_be_undone_and_that_nothing_is(engine):
    handle = await engine.start(shopping, "keep")
    await handle.result(10)
    assert await undos_of(engine, handle.id) == {
        "1": ("give_back", "declared"),
        "2": ("unbook", "declared"),
        "4": ("cannot_give_back", "declared"),
        "5": ("give_back", "declared"),
    }  # 3 has no undo; 6 raised a declared error: it had no effect
    run = await engine.database.read(queries.get_run, handle.id)
    assert run.undoing_since is None


async def test_while_a_run_undoes_each_operation_says_how_far_that_is(engine):
    handle = await engine.start(shopping, "wine")
    await until_undo(engine, handle.id, "5", "running")
    assert await undos_of(engine, handle.id) == {
        "1": ("give_back", "pending"),
        "2": ("unbook", "pending"),
        "4": ("cannot_give_back", "pending"),
        "5": ("give_back", "running"),
    }
    run = await engine.database.read(queries.get_run, handle.id)
    listed = (await engine.database.read(queries.list_runs)).items
    assert run.status == "running"
    assert run.started_at < run.undoing_since
    assert {each.undoing_since for each in listed if each.id == run.id} == {run.undoing_since}
    gate.open.set()
    with pytest.raises(ValueError, match="no wine"):
        await handle.result(10)
    assert await undos_of(engine, handle.id) == {
        "1": ("give_back", "undone"),
        "2": ("unbook", "undone"),
        "4": ("cannot_give_back", "failed"),
        "5": ("give_back", "undone"),
    }
    (failed,) = [e.undo for e in await history_of(engine, handle.id) if e.operation == "4"]
    assert failed.error.message == "it is gone"
    assert (await engine.database.read(queries.get_run, handle.id)).undoing_since is None


async def test_pages_of_a_history_say_the_same_as_the_whole(engine):
    handle = await engine.start(shopping, "wine")
    await until_undo(engine, handle.id, "5", "running")
    found, cursor, more = [], None, True
    while more:
        page = await engine.database.read(queries.list_history, handle.id, cursor, 1)
        found += page.items
        cursor, more = page.next_cursor, page.next_cursor is not None
    assert found == await history_of(engine, handle.id)
    gate.open.set()


async def test_an_undo_that_is_tried_again_says_how_often_and_why(engine):
    handle = await engine.start(patient)
    await wait_until(lambda: gate.attempts > 3)

    async def told():
        (entry, *_) = await history_of(engine, handle.id)
        return entry.undo if entry.undo.attempt > 3 else None

    undo = await wait_until(told)
    assert (undo.name, undo.status, undo.error.message) == ("give-back-later", "running", "the shop is closed")
    gate.open.set()
    with pytest.raises(ValueError, match="no wine"):
        await handle.result(10)
    (entry, *_) = await history_of(engine, handle.id)
    assert (entry.undo.status, entry.undo.error) == ("undone", None)
    assert entry.undo.attempt > 3


async def test_the_history_and_an_event_tell_once_why_a_run_undoes_also_after_a_crash(sqlite_url):
    async with Engine.open(sqlite_url, WORKFLOWS) as engine:
        handle = await engine.start(side_by_side, id="r")
        await until_undo(engine, "r", "1/2/1", "running")
        assert (await undos_of(engine, "r"))["1/1/1"] == ("give_back", "pending")
        await engine.abandon()
    gate.open.set()
    async with Engine.open(sqlite_url, WORKFLOWS) as engine:
        handle = engine.handle("r", side_by_side)
        with pytest.raises(ValueError, match="no"):
            await handle.result(10)
        rows = await history_of(engine, "r")
        told = await wait_until(lambda: events_until_the_end(engine, "r"))
        exported = await export_history(engine, "r")
    assert [row.operation for row in rows][2:] == ["undoing", "1/2/1/undo", "1/1/1/undo"]
    assert (rows[2].error.type, rows[2].error.message) == ("ValueError", "no")
    assert [event.data["operations"] for event in told if event.type == RUN_UNDOING.name] == [2]
    with pytest.raises(ValueError, match="no"):
        replay_history(side_by_side, exported)


async def test_a_retry_of_a_run_that_was_undone_begins_with_nothing_undone(engine):
    gate.open.set()
    handle = await engine.start(shopping, "wine")
    with pytest.raises(ValueError, match="no wine"):
        await handle.result(10)
    await handle.retry()
    with pytest.raises(ValueError, match="no wine"):
        await handle.result(10)
    assert [entry.operation for entry in await history_of(engine, handle.id)].count("undoing") == 1
    assert (await undos_of(engine, handle.id))["1"] == ("give_back", "undone")


async def test_a_cancelled_run_undoes_for_its_cancellation(engine):
    gate.open.set()
    handle = await engine.start(waits)

    async def waiting():
        return await handle.status() == "waiting"

    await wait_until(waiting)
    await handle.cancel("changed my mind")
    with pytest.raises(RunCancelled):
        await handle.result(10)
    (mark,) = [entry for entry in await history_of(engine, handle.id) if entry.kind == "undoing"]
    assert (mark.error.type, mark.error.message) == ("RunCancelled", "changed my mind")


async def test_a_child_whose_result_cannot_be_read_is_undone_also_after_a_crash(database_url):
    undone = []

    @workflow(name="ships")
    async def ships(ctx: Context, what: str) -> Shipment:
        return Shipment.model_construct(weight=-1)  # written as it is, and refused by whoever reads it

    async def call_back(shipment: Shipment | None, what: str) -> None:
        undone.append((shipment, what))
        await gate.open.wait()

    @workflow(name="orders")
    async def orders(ctx: Context) -> None:
        await ctx.child(ships, "cake", undo=call_back)

    options = {"lease_seconds": 0.2}
    async with Engine.open(database_url, [ships, orders], **options) as engine:
        handle = await engine.start(orders)
        await wait_until(lambda: undone)
        await engine.abandon()
    gate.open.set()
    async with Engine.open(database_url, [ships, orders], **options) as engine:
        with pytest.raises(PayloadInvalid, match="weight"):
            await engine.handle(handle.id, orders).result(10)
        assert await undos_of(engine, handle.id) == {"1": ("call_back", "undone")}
    assert undone == [(None, "cake")] * 2


@workflow(name="books")
async def books(ctx: Context) -> None:
    """Book a table and wait."""
    await ctx.transaction(book_table, ctx.run_id, undo=give_table_back)
    await ctx.sleep(timedelta(days=1))


@workflow(name="books")
async def books_otherwise(ctx: Context) -> None:
    """The same, changed: it does not fit what was."""
    await ctx.sleep(timedelta(days=1))


def book_table(connection: Connection, run_id: str) -> None:
    connection.write(Write(SET_VIEW, (run_id, "table", '"booked"', 0, 0)))


def give_table_back(connection: Connection, result: None, run_id: str) -> None:
    connection.write(Write(SET_VIEW, (run_id, "table", '"free"', 1, 1)))


def retry_and_cancel(connection, run_id):
    rewind.retry(connection, run_id)
    commands.cancel(connection, run_id)


async def has_status(handle, status):
    return await handle.status() == status


async def test_a_run_that_is_cancelled_before_its_retry_begins_undoes_what_it_had_done(database_url):
    async with Engine.open(database_url, [books]) as engine:
        handle = await engine.start(books)
        await wait_until(lambda: has_status(handle, "waiting"))
    async with Engine.open(database_url, [books_otherwise]) as engine:
        handle = engine.handle(handle.id, books)
        await engine.database.transact(wake, handle.id)
        await wait_until(lambda: has_status(handle, "nondeterministic"))
    async with Engine.open(database_url, [books]) as engine:
        handle = engine.handle(handle.id, books)
        assert await handle.view("table") == "booked"
        await engine.database.transact(retry_and_cancel, handle.id)
        with pytest.raises(RunCancelled):
            await handle.result(10)
        assert await handle.view("table") == "free"


def fork_and_cancel(connection, run_id):
    commands.cancel(connection, rewind.fork(connection, run_id, from_operation="2", new_id="fork"))


async def test_a_fork_that_is_cancelled_before_it_begins_undoes_nothing_of_the_run_it_was_made_of(database_url):
    async with Engine.open(database_url, [shopping, baking]) as engine:
        gate.open.set()
        handle = await engine.start(shopping, "keep")
        await handle.result(10)
        await engine.database.transact(fork_and_cancel, handle.id)
        with pytest.raises(RunCancelled):
            await engine.handle("fork", shopping).result(10)
        assert (await undos_of(engine, "fork"))["1"] == ("give_back", "declared")


def enter(connection: Connection, what: str) -> str:
    return what


def strike_out(connection: Connection, entered: str | None, what: str) -> None:
    struck.append((entered, what))


struck = []


@workflow(name="enters-two")
async def enter_two(ctx: Context) -> None:
    await ctx.wait_signal(address_changed)
    await ctx.gather(*(ctx.transaction(enter, what, undo=strike_out) for what in ("one", "two")))


async def test_a_transaction_that_was_cancelled_before_it_began_is_not_undone(database_url):
    """Its run came back after a crash: of a step nobody knows whether it had begun, of a transaction everybody does."""
    struck.clear()
    async with Engine.open(database_url, [enter_two], lease_seconds=0.3) as engine:
        handle, (begun, _) = await engine.start(enter_two), hold_up_transactions(engine)
        await handle.signal(address_changed, "go")
        await begun.wait()
        await engine.abandon()
    async with Engine.open(database_url, [enter_two], lease_seconds=0.3) as engine:
        begun, go_on = hold_up_transactions(engine)
        await begun.wait()
        await engine.handle(handle.id).cancel()
        await wait_until(lambda: engine.residence.executors[handle.id]._inbox)
        go_on.set()
        with pytest.raises(RunCancelled):
            await engine.handle(handle.id, enter_two).result(10)
    assert struck == [("one", "one")]


@workflow(name="enters-two-and-stays")
async def enter_two_and_stay(ctx: Context) -> list[str]:
    return await ctx.gather(*(ctx.transaction(enter, what) for what in ("one", "two")))


async def test_transactions_of_branches_side_by_side_are_done_one_after_the_other(database_url):
    async with Engine.open(database_url, [enter_two_and_stay]) as engine:
        assert await (await engine.start(enter_two_and_stay)).result(10) == ["one", "two"]


async def bakes_for_ever(cake: str) -> None:
    baking_now.append(cake)
    await asyncio.Event().wait()


async def throws_away(result: None, cake: str) -> None:
    baking_now.remove(cake)


baking_now = []


@workflow(name="bakes-one")
async def bakes_one(ctx: Context) -> None:
    await ctx.step(step(bakes_for_ever), "cake", undo=throws_away)


async def test_a_step_that_a_dead_worker_had_begun_is_undone_though_it_is_cancelled_before_it_is_tried_again(
    sqlite_url,
):
    baking_now.clear()
    async with Engine.open(sqlite_url, [bakes_one]) as engine:
        handle = await engine.start(bakes_one)
        await wait_until(lambda: baking_now)
        await engine.abandon()
    async with Engine.open(sqlite_url, [bakes_one], works=False) as engine:
        await engine.handle(handle.id).cancel()
    async with Engine.open(sqlite_url, [bakes_one]) as engine:
        with pytest.raises(RunCancelled):
            await engine.handle(handle.id, bakes_one).result(10)
    assert baking_now == []


async def put_back(taken: str | None, what: str) -> None:
    struck.append((taken, what))


@workflow(name="takes-beside")
async def takes_beside(ctx: Context) -> None:
    async def takes_two():
        for what in ("one", "two"):
            await ctx.step(take, what, undo=put_back)

    await ctx.gather(takes_two(), ctx.step(sell_out, "it"))


async def test_a_step_that_was_cancelled_before_it_began_is_not_undone(sqlite_url):
    struck.clear()
    async with Engine.open(sqlite_url, [takes_beside]) as engine:
        with pytest.raises(SoldOut):
            await (await engine.start(takes_beside)).result(10)
    assert struck == [("one", "one")]


def hold_up_transactions(engine):
    """Transactions of runs begin once the second event is set; the first says that one is to begin."""
    transact, begun, go_on = engine.database.transact, asyncio.Event(), asyncio.Event()

    async def held_up(function, *args, fence=None):
        if "_transact" in function.__qualname__:
            begun.set()
            await go_on.wait()
        return await transact(function, *args, fence=fence)

    engine.database.transact = held_up
    return begun, go_on


@workflow(name="enters-and-fails")
async def enter_and_fail(ctx: Context, refusals: int) -> None:
    await ctx.transaction(enter, str(refusals), undo=strike_out_at_last)
    await ctx.step(sell_out, "it")


def strike_out_at_last(connection: Connection, entered: str | None, what: str) -> None:
    struck.append((entered, what))
    if len(struck) <= int(what):
        raise LookupError("not yet")


async def test_a_transaction_that_undoes_is_tried_again_like_any_undo(database_url):
    for refusals, status, attempts in [(2, "undone", 3), (99, "failed", 11)]:
        struck.clear()
        async with environment(database_url, [enter_and_fail]) as env:
            handle = await env.engine.start(enter_and_fail, refusals)
            with pytest.raises(SoldOut):
                await env.result(handle)
            rows = await env.engine.database.read(queries.get_history, handle.id)
            (undo,) = [row.undo for row in rows if row.undo is not None]
            assert (undo.status, undo.attempt, len(struck)) == (status, attempts, attempts)
            assert not await env.engine.database.read(lambda c: c.execute(select(attempts_table)).all())


async def test_the_pause_between_two_attempts_to_undo_in_a_transaction_outlives_the_worker(database_url):
    struck.clear()
    async with environment(database_url, [enter_and_fail], lease_seconds=0.3) as env:
        handle = await env.engine.start(enter_and_fail, 1)
        await wait_until(lambda: env.engine.database.read(lambda c: c.execute(select(attempts_table)).all()))
        await env.engine.abandon()
        now = env.now
    async with environment(database_url, [enter_and_fail], start=now, lease_seconds=0.3) as env:
        assert len(struck) == 1
        with pytest.raises(SoldOut):
            await env.result(env.engine.handle(handle.id))
        assert len(struck) == 2


class Thread:
    """A step in a thread that does not hear when it is stopped, until a test lets it go on."""

    def __init__(self):
        self.go_on, self.did = threading.Event(), []


thread = Thread()


@step(timeout=timedelta(seconds=0.05))
def does_not_hear() -> None:
    thread.go_on.wait(20)
    thread.did.append("done")


async def undo_what_was_not_heard(result: None) -> None:
    thread.did.append("undone")


@workflow(name="goes-on-without-it")
async def go_on_without_it(ctx: Context, wait: str) -> None:
    with contextlib.suppress(StepFailed):
        await ctx.step(does_not_hear, undo=undo_what_was_not_heard)
    await (ctx.sleep(3_600) if wait == "sleeps" else ctx.wait_signal(address_changed))


@pytest.mark.parametrize("wait", ["sleeps", "waits"])
async def test_what_a_thread_does_that_goes_on_is_undone_when_it_has_ended_however_long_the_run_waits(
    database_url, wait
):
    """The run leaves memory meanwhile, if it may: whoever takes it next knows nothing of the thread."""
    thread.__init__()
    async with Engine.open(
        database_url, [go_on_without_it, baking], limits=Limits(idle_seconds=0.0), lease_seconds=0.3
    ) as engine:
        handle = await engine.start(go_on_without_it, wait)
        await wait_until(lambda: is_at_rest(handle))
        engine.residence.evict_idle()
        await handle.cancel()
        await wait_until(lambda: is_being_undone(engine, handle))
        thread.go_on.set()
        with pytest.raises(RunCancelled):
            await handle.result(10)
        assert thread.did == ["done", "undone"]


async def test_a_run_leaves_memory_once_a_thread_that_went_on_has_ended(sqlite_url):
    thread.__init__()
    async with Engine.open(sqlite_url, [go_on_without_it], limits=Limits(idle_seconds=0.0)) as engine:
        handle = await engine.start(go_on_without_it, "waits")
        await wait_until(lambda: is_at_rest(handle))
        engine.residence.evict_idle()
        assert handle.id in engine.residence.executors
        thread.go_on.set()
        await wait_until(lambda: engine.residence._resting)
        engine.residence.evict_idle()
        await wait_until(lambda: not engine.residence.executors)


async def is_at_rest(handle):
    return await handle.status() == "waiting"


async def is_being_undone(engine, handle):
    run = await engine.database.read(queries.get_run, handle.id)
    return run.undoing_since is not None or run.ended_at is not None
