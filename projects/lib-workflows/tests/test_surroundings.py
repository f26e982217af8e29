"""Context variables: a run's code finds those of the engine and of the run itself, whoever has started or woken it."""

import asyncio
from contextvars import ContextVar

from sqlalchemy import select

from lib_events.database import Connection
from lib_events.event import Cause, Event, current_cause
from lib_events.tables import events
from lib_workflows import Context, Engine, EventType, Principal, Signal, step, workflow

Told = EventType("surroundings.told", str)
go_on = Signal("go-on", str)
user: ContextVar[str] = ContextVar("user", default="nobody")


@step
async def who() -> str:
    return user.get()


@step
def who_in_a_thread() -> str:
    return user.get()


def tell(connection: Connection, run: str) -> str:
    connection.publish(Event.of(Told, run, source=connection.source, subject=run))
    return user.get()


@workflow(name="looks-around")
async def look_around(ctx: Context) -> list[str]:
    """Say who seems to be the user, before and after whoever else has woken the run."""
    found = [user.get(), await ctx.step(who)]
    await ctx.sleep(0.02)
    await ctx.wait_signal(go_on)
    await ctx.sleep(0.02)
    return [
        *found,
        user.get(),
        await ctx.step(who),
        await ctx.step(who_in_a_thread),
        await ctx.transaction(tell, ctx.run_id),
    ]


async def start_as(engine, name):
    user.set(name)
    current_cause.set(Cause(principal=name))
    return await engine.start(look_around, id=name, principal=Principal(name))


async def wake_as(name, handle):
    user.set(name)
    current_cause.set(Cause(principal=name))
    await handle.signal(go_on, "")


async def test_code_of_a_run_finds_nothing_of_whoever_starts_or_wakes_it(database_url):
    user.set("whoever opened the engine")
    names = ["alice", "bob", "carol"]
    async with Engine.open(database_url, [look_around]) as engine:
        handles = [await asyncio.create_task(start_as(engine, name)) for name in names]
        for name, handle in zip(names, reversed(handles), strict=True):
            await asyncio.create_task(wake_as(name, handle))
        for handle in handles:
            assert await handle.result(10) == ["whoever opened the engine"] * 6


async def test_what_a_run_publishes_in_a_transaction_is_in_its_own_name(database_url):
    names = ["alice", "bob", "carol"]
    async with Engine.open(database_url, [look_around]) as engine:
        handles = [await asyncio.create_task(start_as(engine, name)) for name in names]
        for name, handle in zip(names, reversed(handles), strict=True):
            await asyncio.create_task(wake_as(name, handle))
        for handle in handles:
            await handle.result(10)
        bodies = select(events.c.body).where(events.c.type == Told.name)
        told = [Event.from_json(body) for body in await engine.database.read(lambda c: c.scalars(bodies).all())]
    assert {event.subject: event.extensions["principal"] for event in told} == {name: name for name in names}
