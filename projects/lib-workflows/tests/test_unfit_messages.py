"""Signals and updates that do not fit what they are declared as: whoever may write to a run cannot fail it."""

import asyncio
import contextlib
from dataclasses import replace

import pytest
from flows import Order, PaymentCaptured, address_changed, change_quantity

from lib_events.event import Event
from lib_events.testing import wait_until
from lib_workflows import Context, Engine, Signal, StepFailed, Update, UpdateRejected, workflow
from lib_workflows.reading import queries
from lib_workflows.testing import export_history, replay_history

not_an_address = Signal("address-changed", int)  # as a sender with another idea of it sends it
no_quantity = Update("change-quantity", str, int)


@workflow(name="moves")
async def moves(ctx: Context) -> str:
    return await ctx.wait_signal(address_changed)


@workflow(name="counts")
async def counts(ctx: Context) -> int:
    call = await ctx.wait_update(change_quantity)
    await call.reply(call.value + 1)
    return call.value


async def logged(engine, handle):
    return [line.message for line in (await engine.database.read(queries.list_logs, handle.id)).items]


async def waits(engine, handle):
    async def is_waiting():
        return await handle.status() == "waiting"

    await wait_until(is_waiting)


@pytest.mark.parametrize("before_the_wait", [True, False])
async def test_a_signal_that_does_not_fit_is_dropped_and_logged_and_the_wait_goes_on(database_url, before_the_wait):
    async with Engine.open(database_url, [moves]) as engine:
        handle = await engine.start(moves)
        if not before_the_wait:
            await waits(engine, handle)
        await handle.signal(not_an_address, 5)
        await handle.signal(address_changed, "Elm Street")
        assert await handle.result(10) == "Elm Street"
        assert replay_history(moves, await export_history(engine, handle.id)) == "Elm Street"
        told = await wait_until(lambda: logged(engine, handle))
    fault = "signal address-changed must fit its declared type: Input should be a valid string"
    assert told == [f"{fault}; the signal is dropped"]


async def test_the_sender_of_an_update_that_does_not_fit_is_told_and_the_wait_goes_on(database_url):
    async with Engine.open(database_url, [counts]) as engine:
        handle = await engine.start(counts)
        with pytest.raises(UpdateRejected, match="update change-quantity must fit its declared type"):
            await handle.update(no_quantity, "many", timeout=10)
        assert await handle.update(change_quantity, 4, timeout=10) == 5
        assert await handle.result(10) == 4


async def test_what_was_dropped_does_not_come_back_with_the_next_process(database_url):
    async with Engine.open(database_url, [moves]) as engine:
        handle = await engine.start(moves)
        await handle.signal(not_an_address, 5)
        await wait_until(lambda: logged(engine, handle))
        await waits(engine, handle)
    async with Engine.open(database_url, [moves]) as engine:
        handle = engine.handle(handle.id)
        await handle.signal(address_changed, "Elm Street")
        assert await handle.result(10) == "Elm Street"
        assert len(await logged(engine, handle)) == 1


@workflow(name="is-paid")
async def is_paid(ctx: Context) -> int:
    for _ in range(3):
        with contextlib.suppress(StepFailed):
            return (await ctx.wait_event(PaymentCaptured, {"id": "a"})).amount
    return 0


@pytest.mark.parametrize("before_the_wait", [True, False])
async def test_an_event_that_does_not_fit_is_an_error_once_and_the_next_wait_is_for_the_next_one(
    database_url, before_the_wait
):
    fits = Event.of(PaymentCaptured, Order(id="a", amount=3), source="/shop")
    async with Engine.open(database_url, [is_paid]) as engine:
        handle = await engine.start(is_paid)
        if not before_the_wait:
            await waits(engine, handle)
        await engine.database.transact(lambda c: c.publish(replace(fits, id="unfit", data={"id": "a"}), fits))
        assert await handle.result(10) == 3


stop_counting = Update("stop-counting", int, int)


@workflow(name="is-told-two-things")
async def is_told_two_things(ctx: Context) -> list[int]:
    told = []
    for update in (stop_counting, change_quantity):
        call = await ctx.wait_update(update)
        await call.reply(call.value)
        told.append(call.value)
    return told


async def test_an_update_is_not_taken_by_a_wait_for_one_of_another_name(sqlite_url):
    async with Engine.open(sqlite_url, [is_told_two_things]) as engine:
        handle = await engine.start(is_told_two_things)
        await waits(engine, handle)
        quantity = asyncio.ensure_future(handle.update(change_quantity, 1, timeout=10))
        await wait_until(lambda: engine.residence.executors[handle.id].mailbox)
        assert await handle.update(stop_counting, 2, timeout=10) == 2
        assert await quantity == 1
        assert await handle.result(10) == [2, 1]
