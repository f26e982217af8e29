"""An operator cancels a statement of an engine on PostgreSQL, at any moment: no run fails by it, and none is stuck."""

import asyncio
import logging
from contextlib import asynccontextmanager

import pytest
from flows import address_changed, doubling, make_stock, stock_of
from sqlalchemy import text

from lib_events.database import Connection
from lib_events.testing import wait_until
from lib_workflows import Context, Engine, RunCancelled, workflow
from lib_workflows.run_logs import RunLogs
from lib_workflows.workers.limits import Limits

pytestmark = pytest.mark.postgresql
CANCEL = """
    SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity
    WHERE state = 'active' AND wait_event_type = 'Lock' AND query LIKE $1
"""


@asynccontextmanager
async def held_up(engine, lock, *args):
    """Within the block somebody else holds what is locked; gives the way to cancel a statement that waits for it."""
    holder, operator = await engine.database.connect(), await engine.database.connect()

    async def cancel(part, *before):
        """Cancel what says `part`, and as often as they come the statements that are tried before it."""

        async def is_cancelled():
            for each in before:
                await operator.fetchval(CANCEL, f"%{each}%")
            return await operator.fetchval(CANCEL, f"%{part}%")

        await wait_until(is_cancelled)

    try:
        async with holder.transaction():
            await holder.execute(lock, *args)
            yield cancel
    finally:
        await holder.close()
        await operator.close()


LOCK_RUN = "SELECT FROM runs WHERE id = $1 FOR UPDATE"


def reserve_slowly(connection: Connection, run: str) -> None:
    connection.execute(text("INSERT INTO stock (run, change) VALUES (:run, -1)"), {"run": run})
    connection.execute(text("LOCK TABLE stock"))


@workflow(name="reserves-slowly")
async def reserves_slowly(ctx: Context) -> None:
    await ctx.transaction(reserve_slowly, ctx.run_id)


async def test_a_transaction_that_was_cancelled_is_done_once(postgresql_url):
    async with Engine.open(postgresql_url, [reserves_slowly]) as engine:
        await engine.database.transact(make_stock)
        async with held_up(engine, "LOCK TABLE stock IN ROW EXCLUSIVE MODE") as cancel:
            handle = await engine.start(reserves_slowly)
            await cancel("LOCK TABLE")
        await handle.result(20)
        assert await engine.database.read(stock_of, handle.id) == [-1]


@workflow(name="waits-for-an-address")
async def waits_for_an_address(ctx: Context) -> str:
    return await ctx.wait_signal(address_changed)


@workflow(name="has-a-child-that-waits")
async def has_a_child_that_waits(ctx: Context) -> str:
    return await ctx.child(waits_for_an_address)


async def child_of(engine, handle):
    find = text("SELECT id FROM runs WHERE parent = :parent AND status = 'waiting'")
    return await wait_until(lambda: engine.database.read(lambda c: c.scalar(find, {"parent": handle.id})))


async def test_a_cancellation_reaches_a_child_although_what_passes_it_on_was_cancelled(postgresql_url):
    async with Engine.open(postgresql_url, [has_a_child_that_waits, waits_for_an_address]) as engine:
        handle = await engine.start(has_a_child_that_waits)
        child = await child_of(engine, handle)
        async with held_up(engine, LOCK_RUN, child) as cancel:
            await handle.cancel()
            await cancel("FROM runs %FOR UPDATE")
        for each in (handle, engine.handle(child, waits_for_an_address)):
            with pytest.raises(RunCancelled):
                await each.result(20)


async def test_a_parent_hears_of_its_child_although_what_wakes_it_was_cancelled(postgresql_url):
    at_once = Limits(idle_seconds=0)
    flows = [has_a_child_that_waits, waits_for_an_address]
    async with Engine.open(postgresql_url, flows, limits=at_once) as engine:
        handle = await engine.start(has_a_child_that_waits)
        child = await child_of(engine, handle)
        await wait_until(lambda: handle.id not in engine.residence.executors)
        async with held_up(engine, LOCK_RUN, handle.id) as cancel:
            await engine.handle(child, waits_for_an_address).signal(address_changed, "there")
            await cancel("UPDATE runs SET wakes=", "FROM fence")  # the group commit that would have woken it
        assert await handle.result(20) == "there"


async def test_an_engine_ends_although_what_lays_down_its_life_was_cancelled(postgresql_url, caplog):
    engines = Engine.open(postgresql_url, [doubling])
    engine = await engines.__aenter__()
    assert await (await engine.start(doubling, 2)).result(20) == 4
    async with held_up(engine, "SELECT FROM workers FOR UPDATE") as cancel:
        ending = asyncio.ensure_future(engines.__aexit__(None, None, None))
        await cancel("UPDATE workers SET epoch")
        await ending
    assert "go on elsewhere, or at its next start: nothing was saved in PostgreSQL" in caplog.text
    assert not any(isinstance(handler, RunLogs) for handler in logging.getLogger().handlers)
