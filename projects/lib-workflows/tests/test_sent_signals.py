"""Signals come in the order in which they were sent, and one with a key once, however often and from wherever."""

import asyncio

import pytest
from flows import address_changed

from lib_events.testing import wait_until
from lib_workflows import Context, Engine, workflow
from lib_workflows.errors import CommandRefused, RunNotFound
from lib_workflows.runs import commands

SENDERS = 20


@workflow(name="two-addresses")
async def two_addresses(ctx: Context) -> list[str]:
    return [await ctx.wait_signal(address_changed), await ctx.wait_signal(address_changed)]


@workflow(name="three-addresses")
async def three_addresses(ctx: Context) -> list[str]:
    return [await ctx.wait_signal(address_changed) for _ in range(3)]


@workflow(name="moving-on")
async def moving_on(ctx: Context, lives: int) -> str:
    address = await ctx.wait_signal(address_changed)
    if lives:
        await ctx.continue_as_new(lives - 1)
    return address


async def test_signals_that_came_while_nobody_had_the_run_in_memory_are_taken_in_their_order(sqlite_url):
    async with Engine.open(sqlite_url, [three_addresses]) as engine:
        handle = await engine.start(three_addresses)
        await wait_until(lambda: engine.residence.is_quiet)
    async with Engine.open(sqlite_url, [three_addresses], works=False) as engine:
        for address in "123":
            await engine.handle(handle.id).signal(address_changed, address)
    async with Engine.open(sqlite_url, [three_addresses]) as engine:
        assert await engine.handle(handle.id, three_addresses).result(10) == ["1", "2", "3"]


async def test_of_twenty_who_send_a_signal_by_one_key_one_does(database_url):
    async with Engine.open(database_url, [two_addresses]) as engine:
        handle = await engine.start(two_addresses)
        sent = [handle.signal(address_changed, "Elm Street", idempotency_key="once") for _ in range(SENDERS)]
        await asyncio.gather(*sent)
        await handle.signal(address_changed, "Oak Street", idempotency_key="another")
        assert await handle.result(20) == ["Elm Street", "Oak Street"]


async def test_a_run_that_was_saved_while_somebody_looked_for_it_takes_their_signal(database_url, monkeypatch):
    wake, looks = commands.wake, []

    def not_there_yet(connection, run_id):
        looks.append(run_id)
        return wake(connection, run_id) if len(looks) > 1 else None

    async with Engine.open(database_url, [moving_on]) as engine:
        handle = await engine.start(moving_on, 0)
        with monkeypatch.context() as patch:
            patch.setattr(commands, "wake", not_there_yet)
            await handle.signal(address_changed, "Elm Street")
        assert len(looks) == 2
        assert await handle.result(20) == "Elm Street"


async def test_a_key_is_remembered_over_the_lives_of_a_run_and_after_its_end(database_url):
    async with Engine.open(database_url, [moving_on]) as engine:
        handle = await engine.start(moving_on, 1)
        await handle.signal(address_changed, "Elm Street", idempotency_key="once")
        await handle.signal(address_changed, "Elm Street", idempotency_key="once")
        await handle.signal(address_changed, "Oak Street", idempotency_key="another")
        assert await handle.result(20) == "Oak Street"
        await handle.signal(address_changed, "Elm Street", idempotency_key="once")
        with pytest.raises(CommandRefused):
            await handle.signal(address_changed, "Elm Street", idempotency_key="too late")
        with pytest.raises(CommandRefused):  # what was refused was not sent
            await handle.signal(address_changed, "Elm Street", idempotency_key="too late")


async def test_what_is_sent_to_nobody_leaves_no_key(database_url):
    async with Engine.open(database_url, [two_addresses]) as engine:
        for _ in range(2):
            with pytest.raises(RunNotFound):
                await engine.handle("nobody").signal(address_changed, "Elm Street", idempotency_key="once")
