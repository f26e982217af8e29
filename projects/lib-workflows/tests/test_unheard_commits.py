"""Commits whose end nobody hears: they are on disk all the same, and what they gave to a worker is not left behind."""

import asyncio
from contextlib import asynccontextmanager

import flows
import pytest
from flows import doubling
from sqlalchemy import func, select, text

from lib_events.database import CommitFailed, open_database
from lib_events.testing import wait_until
from lib_events.testing.line import Line
from lib_workflows import Context, Engine, RunCancelled, step, workflow
from lib_workflows.errors import Nondeterministic
from lib_workflows.reading import queries
from lib_workflows.runs import commands
from lib_workflows.runs.record import load
from lib_workflows.statements import UPDATE_RUN
from lib_workflows.tables import event_waits, runs
from lib_workflows.workers.claims import look
from lib_workflows.workers.worker import held_runs

LEASE_SECONDS = 0.3


def hear_nothing_of(engine, wanted):
    """The first transaction that `wanted` chooses is committed, and told as lost; gives those it has chosen."""
    transact, unheard = engine.database.transact, []

    async def deaf_once(function, *args, fence=None):
        value = await transact(function, *args, fence=fence)
        if not unheard and wanted(function):
            unheard.append(value)
            raise CommitFailed("the connection was lost")
        return value

    engine.database.transact = deaf_once
    return unheard


async def test_a_run_whose_start_nobody_heard_of_is_run_all_the_same(database_url):
    async with Engine.open(database_url, [doubling]) as engine:
        unheard = hear_nothing_of(engine, lambda function: function is commands.start)
        with pytest.raises(CommitFailed):
            await engine.start(doubling, 4, id="unheard")
        assert unheard
        assert await engine.handle("unheard", doubling).result(10) == 8


async def test_runs_whose_claim_nobody_heard_of_are_run_all_the_same(database_url):
    async with Engine.open(database_url, [doubling]) as engine:
        unheard = hear_nothing_of(engine, lambda function: function == engine.residence.arrivals._claim)
        await engine.database.transact(commands.start, engine.request(doubling, "4", id="claimed"))
        assert await engine.handle("claimed", doubling).result(10) == 8
        assert unheard


async def test_a_run_whose_starter_was_cancelled_is_run_all_the_same(database_url):
    async with Engine.open(database_url, [doubling]) as engine:
        transact, under_way, go_on = engine.database.transact, asyncio.Event(), asyncio.Event()

        async def held_up(function, *args, fence=None):
            value = await transact(function, *args, fence=fence)
            if function is commands.start:
                under_way.set()
                await go_on.wait()
            return value

        engine.database.transact = held_up
        starting = asyncio.ensure_future(engine.start(doubling, 4, id="nobody-waits"))
        await under_way.wait()
        starting.cancel()
        await asyncio.wait([starting])
        go_on.set()
        assert await engine.handle("nobody-waits", doubling).result(10) == 8


async def test_looking_for_runs_left_behind_takes_none_that_are_under_way(database_url):
    """A run begins while the worker looks: loaded again, it would have a second life beside the one it has."""
    async with Engine.open(database_url, [doubling]) as engine:
        read, begun, loaded = engine.database.read, [], []

        async def read_while_one_begins(function, *args):
            if function is held_runs and not begun:
                begun.append(await engine.start(doubling, 4, id="under-way"))
                return [begun[0].id]
            if function is load:
                loaded.append(args)
            return await read(function, *args)

        engine.database.read = read_while_one_begins
        with pytest.raises(CommitFailed), engine.residence.arrivals.doubt.about_commit():
            raise CommitFailed("in doubt")
        await wait_until(lambda: begun)
        assert await begun[0].result(10) == 8
        assert flows.calls == [("double", 4)]
        assert not loaded


@pytest.mark.postgresql
async def test_a_worker_that_begins_again_while_it_looks_claims_nothing_for_its_life_before(postgresql_url):
    async with Engine.open(postgresql_url, [doubling]) as engine:
        read, begun_again = engine.database.read, []

        async def read_while_the_life_ends(function, *args):
            found = await read(function, *args)
            if function is look and found.free and not begun_again:
                engine.residence.fenced(engine.residence.worker_id)
                await wait_until(lambda: not engine.residence.is_lost)
                begun_again.append(engine.residence.worker_id)
            return found

        engine.database.read = read_while_the_life_ends
        await engine.database.transact(commands.start, engine.request(doubling, "4", id="claimed"))
        assert await engine.handle("claimed", doubling).result(15) == 8
        assert begun_again


@workflow(name="asks-in-vain")
async def asks_in_vain(ctx: Context) -> int:
    index, _ = await ctx.race(ctx.approval("never", text="?", to="role:nobody"), ctx.sleep(0.01))
    return index


async def test_a_run_does_not_end_before_what_it_asked_for_is_withdrawn(database_url):
    async with Engine.open(database_url, [asks_in_vain], lease_seconds=LEASE_SECONDS) as engine:
        transact, withdrawing = engine.database.transact, asyncio.Event()

        async def dies_before_the_withdrawal(function, *args, fence=None):
            if function is commands.expire:
                withdrawing.set()
                await asyncio.Event().wait()
            return await transact(function, *args, fence=fence)

        engine.database.transact = dies_before_the_withdrawal
        await engine.start(asks_in_vain, id="asks")
        await withdrawing.wait()
        assert await engine.handle("asks").status() in ("running", "waiting")
        await engine.abandon()
    async with Engine.open(database_url, [asks_in_vain], lease_seconds=LEASE_SECONDS) as engine:
        assert await engine.handle("asks", asks_in_vain).result(10) == 1
        assert [approval.status for approval in await approvals_of(engine, "asks")] == ["expired"]


async def test_a_parked_run_that_is_cancelled_asks_and_waits_for_nothing_any_more(database_url):
    @workflow(name="changing")
    async def before(ctx: Context) -> None:
        await ctx.step(flows.charge, flows.Order(id="a", amount=1))
        await ctx.gather(
            ctx.approval("ship", text="?", to="role:nobody"), ctx.wait_event(flows.PaymentCaptured, match={"id": "a"})
        )

    @workflow(name="changing")
    async def changed(ctx: Context) -> None:
        await ctx.step(flows.double, 1)

    async with Engine.open(database_url, [before]) as engine:
        handle = await engine.start(before, id="parked")
        await wait_until(lambda: engine.database.read(waits_for_events))
        assert await wait_until(lambda: approvals_of(engine, "parked"))
    async with Engine.open(database_url, [changed]) as engine:
        handle = engine.handle("parked", changed)
        await handle.signal(flows.address_changed, "wakes it")
        with pytest.raises(Nondeterministic):
            await handle.result(10)
        await handle.cancel()
        with pytest.raises(RunCancelled):
            await handle.result(10)
        assert [approval.status for approval in await approvals_of(engine, "parked")] == ["expired"]
        assert not await engine.database.read(waits_for_events)


async def approvals_of(engine, run_id):
    return (await engine.database.read(lambda c: queries.list_approvals(c, run=run_id))).items


def waits_for_events(connection):
    return connection.execute(select(event_waits)).all()


@workflow(name="goes-on-as-new")
async def goes_on_as_new(ctx: Context, left: int) -> str:
    if left == 0:
        await ctx.wait_signal(flows.address_changed)
    await ctx.transaction(flows.reserve, "stock", left)
    if left:
        await ctx.continue_as_new(left - 1)
    return "over"


async def lost_in(engine, commit):
    """Start a run whose life is lost while the commit of that name waits for its connection.

    Its next life does the same once more, goes on as new and waits; then the first commit comes, too late.
    """
    transact, first, go_on = engine.database.transact, asyncio.Event(), asyncio.Event()

    async def holding_up_the_first(function, *args, fence=None):
        if commit in function.__qualname__ and not first.is_set():
            first.set()
            await go_on.wait()
        return await transact(function, *args, fence=fence)

    engine.database.transact = holding_up_the_first
    handle = await engine.start(goes_on_as_new, 1, id="lives")
    await first.wait()
    engine.residence.run_lost(engine.residence.executors["lives"], CommitFailed("the connection was lost"))
    await wait_until(lambda: waits_for_a_signal(engine, "lives"))
    go_on.set()
    await wait_until(lambda: engine.residence.is_quiet)
    return handle


async def waits_for_a_signal(engine, run_id):
    run = await engine.database.read(queries.get_run, run_id)
    return [wait["kind"] for wait in run.waiting_for] == ["wait_signal"]


async def test_a_transaction_of_a_life_that_was_lost_is_not_done_in_the_next(database_url):
    async with Engine.open(database_url, [goes_on_as_new]) as engine:
        await engine.database.transact(flows.make_stock)
        handle = await lost_in(engine, "_transact")
        assert await engine.database.read(flows.stock_of, "stock") == [-1]
        await handle.signal(flows.address_changed, "on")
        assert await handle.result(10) == "over"
        assert await engine.database.read(flows.stock_of, "stock") == [-1, 0]


async def test_a_life_that_was_lost_does_not_go_on_as_new_a_second_time(database_url):
    async with Engine.open(database_url, [goes_on_as_new]) as engine:
        await engine.database.transact(flows.make_stock)
        handle = await lost_in(engine, "continue_as_new")
        assert await engine.database.read(queries.count_runs) == {"continued": 1, "waiting": 1}
        await handle.signal(flows.address_changed, "on")
        assert await handle.result(10) == "over"
        assert await engine.database.read(flows.stock_of, "stock") == [-1, 0]


async def test_a_run_that_cannot_go_on_as_new_now_does_so_later(sqlite_url):
    async with Engine.open(sqlite_url, [goes_on_as_new]) as engine:
        await engine.database.transact(flows.make_stock)
        transact, refused = engine.database.transact, []

        async def refuse_once(function, *args, fence=None):
            if "continue_as_new" in function.__qualname__ and not refused:
                refused.append(function)
                raise CommitFailed("the disk is full")
            return await transact(function, *args, fence=fence)

        engine.database.transact = refuse_once
        handle = await engine.start(goes_on_as_new, 1)
        await handle.signal(flows.address_changed, "on")
        assert await handle.result(10) == "over"
        assert await engine.database.read(flows.stock_of, "stock") == [-1, 0]
    assert refused


async def test_a_run_that_is_claimed_before_its_last_life_hears_that_it_goes_on_as_new_goes_on(database_url):
    async with Engine.open(database_url, [goes_on_as_new]) as engine:
        await engine.database.transact(flows.make_stock)
        transact, arrivals, taken = engine.database.transact, engine.residence.arrivals, []
        take_in = arrivals._take_in

        def take_in_and_tell(record, *rest):
            take_in(record, *rest)
            taken.append(record)

        async def heard_late(function, *args, fence=None):
            value = await transact(function, *args, fence=fence)
            if "continue_as_new" in function.__qualname__:
                arrivals.wake()
                await wait_until(lambda: taken)
            return value

        arrivals._take_in, engine.database.transact = take_in_and_tell, heard_late
        handle = await engine.start(goes_on_as_new, 1)
        await handle.signal(flows.address_changed, "on")
        assert await handle.result(10) == "over"
        assert await engine.database.read(flows.stock_of, "stock") == [-1, 0]


async def test_a_transaction_that_was_committed_unheard_is_found_and_not_a_failure(database_url):
    async with Engine.open(database_url, [goes_on_as_new]) as engine:
        await engine.database.transact(flows.make_stock)
        transact, held_up, go_on = engine.database.transact, asyncio.Event(), asyncio.Event()

        async def unheard(function, *args, fence=None):
            if "_transact" in function.__qualname__ and not held_up.is_set():
                held_up.set()
                await go_on.wait()  # its run is loaded in the meantime, without what this commits
                await transact(function, *args, fence=fence)
            return await transact(function, *args, fence=fence)

        engine.database.transact = unheard
        handle = await engine.start(goes_on_as_new, 0, id="unheard")
        await handle.signal(flows.address_changed, "on")
        await held_up.wait()
        go_on.set()
        assert await handle.result(10) == "over"
        assert await engine.database.read(flows.stock_of, "stock") == [0]


async def test_a_run_that_is_retried_before_its_end_was_heard_of_is_run_again(database_url):
    tries, go_on = [], asyncio.Event()

    @step
    async def fails_once() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError("not yet")
        await go_on.wait()
        return "again"

    @workflow(name="fails-once")
    async def fails_once_flow(ctx: Context) -> str:
        return await ctx.step(fails_once)

    async with Engine.open(database_url, [fails_once_flow]) as engine:
        write, heard, late = engine.database.write, asyncio.Event(), []

        def heard_late(*writes, **options):
            saving = write(*writes, **options)
            if not any(each.statement is UPDATE_RUN and "failed" in each.row for each in writes):
                return saving
            late.append(asyncio.ensure_future(after(saving, heard)))
            return late[0]

        engine.database.write = heard_late
        handle = await engine.start(fails_once_flow)
        await wait_until(lambda: _has_failed(engine, handle.id))
        ended = engine.residence.executors[handle.id]
        await handle.retry()
        await wait_until(lambda: engine.residence.executors.get(handle.id) is not ended)
        result = asyncio.ensure_future(handle.result(10))
        heard.set()
        await late[0]
        go_on.set()
        assert await result == "again"


async def after(saving, heard):
    await saving
    await heard.wait()


async def _has_failed(engine, run_id):
    return (await engine.database.read(queries.get_run, run_id)).status == "failed"


@asynccontextmanager
async def closing(database):
    yield database
    await database.close()


def waiting(connection):
    here = "application_name = 'cut-svc' AND wait_event_type = 'Lock'"
    return connection.scalar(text(f"SELECT count(*) FROM pg_stat_activity WHERE {here}"))


def at_work(connection):
    here = "application_name = 'cut-svc' AND state <> 'idle'"
    return connection.scalar(text(f"SELECT count(*) FROM pg_stat_activity WHERE {here}"))


def unfinished(connection):
    return connection.scalar(select(func.count()).select_from(runs).where(runs.c.ended_at.is_(None)))


@pytest.mark.postgresql
async def test_a_run_whose_start_was_lost_does_not_come_to_be_after_it_was_looked_for(postgresql_url, free_port):
    """The server may go on with what a connection was asked that was cut: its worker held a run it did not know."""
    async with (
        Line(postgresql_url, port=free_port) as line,
        Engine.open(line.url, [doubling], service="cut-svc") as engine,
        closing(await open_database(postgresql_url, service="other-svc", schemas=[])) as other,
    ):
        read, looked = engine.database.read, asyncio.Event()

        async def read_and_tell(function, *args):
            found = await read(function, *args)
            if function is load:
                looked.set()
            return found

        engine.database.read = read_and_tell
        async with other._pool.lend() as borrowed, borrowed.raw.transaction():
            await borrowed.raw.execute("LOCK TABLE runs IN SHARE MODE")
            starting = asyncio.ensure_future(engine.start(doubling, 4))
            await wait_until(lambda: other.read(waiting))
            line.cut()
            with pytest.raises(CommitFailed):
                await starting
            await asyncio.wait_for(looked.wait(), 20)
        await wait_until(lambda: none(other, at_work))
        await wait_until(lambda: none(other, unfinished))


async def none(database, function):
    return not await database.read(function)
