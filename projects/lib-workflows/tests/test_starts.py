"""A start means the run that it says, and that one tells of itself once."""

import asyncio
from datetime import timedelta

import pytest
from flows import Order, OrderPlaced, PaymentCaptured, doubling, on_order
from sqlalchemy import select

from lib_events.database import OtherLoop
from lib_events.event import Cause, Event
from lib_events.event_log import read_after
from lib_events.testing import wait_until
from lib_workflows import Context, Engine, Principal, RunConflict, Signal, workflow
from lib_workflows.reading import queries
from lib_workflows.tables import event_waits
from lib_workflows.testing import environment

ANNA = Principal("u1", "anna")
WAIT = timedelta(seconds=30)
word = Signal("word", str)


@workflow(name="waits-for-word")
async def waits_for_word(ctx: Context) -> str:
    return await ctx.wait_signal(word)


async def told_of(engine, run_id):
    page = await engine.database.read(lambda c: read_after(c, 0, subject=run_id))
    return [placed.event.type for placed in page.events]


async def test_each_idempotency_key_of_a_principal_is_a_run_of_its_own(sqlite_url):
    async with Engine.open(sqlite_url, [doubling], works=False) as engine:
        one, two, again = [
            await engine.start(doubling, number, idempotency_key=key, principal=ANNA)
            for number, key in ((1, "one"), (2, "two"), (2, "two"))
        ]
        assert one.id != two.id == again.id
        with pytest.raises(RunConflict, match=r"idempotency key must .* got 'two'"):
            await engine.start(doubling, 1, idempotency_key="two", principal=ANNA)


async def test_a_burst_tells_of_its_run_once_and_begins_it_when_it_rests_within_the_limit(sqlite_url):
    async with environment(sqlite_url, [doubling]) as env:
        began = env.now
        handles = [
            await env.engine.start(doubling, number, delay=WAIT, debounce="burst", debounce_limit=timedelta(hours=1))
            for number in (1, 2)
        ]
        assert await env.result(handles[0]) == 4
        assert WAIT <= env.now - began < 2 * WAIT
        page = await env.engine.database.read(lambda c: read_after(c, 0, types=["evs.run.queued"]))
        assert [placed.event.subject for placed in page.events] == [handles[1].id]


async def test_an_event_starts_one_run_in_its_own_name_which_tells_of_itself(sqlite_url):
    placed = Event.of(OrderPlaced, Order(id="a", amount=1), source="/shop", cause=Cause(principal=ANNA.subject))
    paid = Event.of(PaymentCaptured, Order(id="a", amount=1), source="/shop")

    async def runs_of_orders():
        return (await engine.database.read(queries.list_runs, queries.RunFilter(workflow=on_order.name))).items

    async with Engine.open(sqlite_url, [on_order]) as engine:
        await engine.database.transact(lambda c: c.publish(placed))
        await wait_until(lambda: engine.database.read(lambda c: c.execute(select(event_waits)).all()))
        (run,) = await runs_of_orders()
        await engine.database.transact(lambda c: c.publish(paid))
        assert await engine.handle(run.id).result(10) == "a paid 1"
        assert [found.id for found in await runs_of_orders()] == [run.id], "what it waits for starts none"
        assert run.principal == Principal(ANNA.subject)
        assert (await told_of(engine, run.id))[0] == "evs.run.queued"


async def test_an_engine_is_used_on_its_own_loop_only_and_says_how_to_reach_it_from_a_thread(database_url):
    """As who answers a request in a thread, or a step that is a `def`, comes to think of `asyncio.run`."""
    async with Engine.open(database_url, [doubling, waits_for_word]) as engine:
        waiting, loop = await engine.start(waits_for_word), asyncio.get_running_loop()
        for use in (
            lambda: engine.start(doubling, 1),
            lambda: engine.start(doubling, 1, id="mine"),
            lambda: engine.start_many(doubling, [1]),
            lambda: waiting.signal(word, "x"),
            lambda: waiting.result(1),
            waiting.status,
        ):
            with pytest.raises(OtherLoop, match="run_coroutine_threadsafe"):
                await asyncio.to_thread(lambda use=use: asyncio.run(use()))
        starting = await asyncio.to_thread(asyncio.run_coroutine_threadsafe, engine.start(doubling, 4), loop)
        assert await (await asyncio.wrap_future(starting)).result(10) == 8
        await waiting.signal(word, "go")
        assert await waiting.result(10) == "go"
