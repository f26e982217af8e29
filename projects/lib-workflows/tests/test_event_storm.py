"""Events that come while branches begin to wait, give up and wait again: each is received once, none is lost."""

import asyncio
import contextlib
import random
from dataclasses import dataclass, field

import pytest
from flows import Order, PaymentCaptured

from lib_events.event import Event
from lib_workflows import Context, Engine, WaitTimeout, workflow
from lib_workflows.workers.limits import Limits

BRANCHES, EACH = 3, 4
EVENTS = BRANCHES * EACH
RUNS = 6


@dataclass
class Awaited:
    order: str
    patience: float  # seconds


@workflow(name="impatient-branches")
async def impatient_branches(ctx: Context, awaited: Awaited) -> list[list[int]]:
    async def branch() -> list[int]:
        amounts: list[int] = []
        while len(amounts) < EACH:
            try:
                payment = await ctx.wait_event(PaymentCaptured, {"id": awaited.order}, timeout=awaited.patience)
            except WaitTimeout:
                continue
            amounts.append(payment.amount)
        return amounts

    return await ctx.gather(*(branch() for _ in range(BRANCHES)))


async def pay(engine, order, chance):
    """Publish all payments of an order, some together, some a moment later."""
    amounts = list(range(EVENTS))
    while amounts:
        count = chance.randint(1, 4)
        now, amounts = amounts[:count], amounts[count:]
        events = [Event.of(PaymentCaptured, Order(id=order, amount=amount), source="/shop") for amount in now]
        await engine.database.transact(lambda connection, events=events: connection.publish(*events))
        for _ in range(chance.randint(0, 30)):
            await asyncio.sleep(0)


@dataclass
class Account:
    order: str
    patience: float  # seconds
    amounts: list[int] = field(default_factory=list)


@workflow(name="many-lives")
async def many_lives(ctx: Context, account: Account) -> list[int]:
    """Receive at most two events, then begin again."""
    amounts = list(account.amounts)
    for _ in range(min(2, EVENTS - len(amounts))):
        with contextlib.suppress(WaitTimeout):
            payment = await ctx.wait_event(PaymentCaptured, {"id": account.order}, timeout=account.patience)
            amounts.append(payment.amount)
    if len(amounts) < EVENTS:
        await ctx.continue_as_new(Account(account.order, account.patience, amounts))
    return amounts


@pytest.mark.parametrize("idle_seconds", [60.0, 0.0], ids=["in memory", "in and out"])
@pytest.mark.parametrize("patience", [0.02, 3600.0], ids=["impatient", "patient"])
async def test_every_event_is_received_once_and_in_order(database_url, patience, idle_seconds):
    chance = random.Random(1)
    async with Engine.open(database_url, [impatient_branches], limits=Limits(idle_seconds=idle_seconds)) as engine:
        orders = [f"order-{number}" for number in range(RUNS)]
        handles = [await engine.start(impatient_branches, Awaited(order, patience)) for order in orders]
        await asyncio.gather(*(pay(engine, order, chance) for order in orders))
        for branches in await asyncio.gather(*(handle.result(60) for handle in handles)):
            assert sorted(amount for branch in branches for amount in branch) == list(range(EVENTS))
            assert all(branch == sorted(branch) for branch in branches)


@pytest.mark.parametrize("patience", [0.02, 3600.0], ids=["impatient", "patient"])
async def test_no_event_is_lost_between_two_lives(database_url, patience):
    chance = random.Random(2)
    async with Engine.open(database_url, [many_lives]) as engine:
        orders = [f"order-{number}" for number in range(RUNS)]
        handles = [await engine.start(many_lives, Account(order, patience)) for order in orders]
        await asyncio.gather(*(pay(engine, order, chance) for order in orders))
        for amounts in await asyncio.gather(*(handle.result(60) for handle in handles)):
            assert amounts == list(range(EVENTS))


@pytest.mark.postgresql
async def test_no_event_is_lost_with_a_worker(postgresql_url):
    chance = random.Random(3)
    options = {"limits": Limits(idle_seconds=0.0), "lease_seconds": 1.0}
    flows = [impatient_branches, many_lives]
    first, second = (Engine.open(postgresql_url, flows, **options) for _ in range(2))
    async with first as dies, second as engine:
        orders = [f"order-{number}" for number in range(RUNS)]
        branches = [await dies.start(impatient_branches, Awaited(order, 0.05)) for order in orders]
        lives = [await dies.start(many_lives, Account(order, 0.05)) for order in orders]
        await asyncio.gather(*(pay(engine, order, chance) for order in orders[:3]))
        await dies.abandon()
        await asyncio.gather(*(pay(engine, order, chance) for order in orders[3:]))
        for handle in branches:
            found = await engine.handle(handle.id, impatient_branches).result(60)
            assert sorted(amount for branch in found for amount in branch) == list(range(EVENTS))
        for handle in lives:
            assert await engine.handle(handle.id, many_lives).result(60) == list(range(EVENTS))
