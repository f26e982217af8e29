"""Changed code that asks for something no more leaves nothing open: no approval to decide, no event to wait for."""

import pytest
from flows import PaymentCaptured, address_changed
from sqlalchemy import select

from lib_events.testing import wait_until
from lib_workflows import Context, Engine, workflow
from lib_workflows.reading import queries
from lib_workflows.runs import commands
from lib_workflows.tables import approvals, event_waits


@workflow(name="changing")
async def asks(ctx: Context) -> str:
    decision = await ctx.approval("ship", text="Ship it?", to="role:manager")
    return str(decision.approved)


@workflow(name="changing")
async def waits(ctx: Context) -> str:
    order = await ctx.wait_event(PaymentCaptured, match={"id": "o1"})
    return order.id


@workflow(name="changing")
async def listens(ctx: Context) -> str:
    return await ctx.wait_signal(address_changed)


@workflow(name="changing")
async def ends(ctx: Context) -> str:
    return "no question"


def open_things(connection):
    pending = select(approvals.c.status).where(approvals.c.status == "pending")
    return [*connection.scalars(pending), *connection.scalars(select(event_waits.c.type))]


async def rests(engine, opened):
    async def look():
        run = await engine.database.read(queries.get_run, "changing")
        return run.status == "waiting" and len(await engine.database.read(open_things)) == opened

    await wait_until(look)


@pytest.mark.parametrize("before", [asks, waits], ids=["an approval", "an event"])
async def test_a_run_that_goes_on_otherwise_closes_what_it_asked_for(database_url, before):
    async with Engine.open(database_url, [before]) as engine:
        await engine.start(before, id="changing")
        await rests(engine, 1)
    async with Engine.open(database_url, [listens]) as engine:
        await engine.handle("changing").signal(address_changed, "here")
        assert await engine.handle("changing", listens).result(10) == "here"
        assert await engine.database.read(open_things) == []


@pytest.mark.parametrize("before", [asks, waits], ids=["an approval", "an event"])
async def test_a_run_that_only_rests_closes_it_too(database_url, before):
    async with Engine.open(database_url, [before]) as engine:
        await engine.start(before, id="changing")
        await rests(engine, 1)
    async with Engine.open(database_url, [listens]) as engine:
        # Whatever brings it into memory.
        await engine.database.transact(wake_it)
        await rests(engine, 0)


def wake_it(connection):
    commands.wake(connection, "changing")


@pytest.mark.parametrize("before", [asks, waits], ids=["an approval", "an event"])
async def test_a_run_that_ends_at_once_closes_it_first(database_url, before):
    async with Engine.open(database_url, [before]) as engine:
        await engine.start(before, id="changing")
        await rests(engine, 1)
    async with Engine.open(database_url, [ends]) as engine:
        await engine.database.transact(wake_it)
        assert await engine.handle("changing", ends).result(10) == "no question"
        assert await engine.database.read(open_things) == []


@pytest.mark.parametrize("now", [asks, waits], ids=["an approval", "an event"])
async def test_what_is_asked_for_still_stays_open(database_url, now):
    async with Engine.open(database_url, [now]) as engine:
        await engine.start(now, id="changing")
        await rests(engine, 1)
    async with Engine.open(database_url, [now]) as engine:
        await engine.database.transact(wake_it)
        await wait_until(lambda: "changing" in engine.residence.executors)
        await rests(engine, 1)
