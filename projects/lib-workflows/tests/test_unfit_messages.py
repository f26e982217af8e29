"""Signals and updates that do not fit what they are declared as: whoever may write to a run cannot fail it."""

import pytest
from flows import address_changed, change_quantity

from lib_events.testing import wait_until
from lib_workflows import Context, Engine, Signal, Update, UpdateRejected, workflow
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
