"""Waiting for events: none is missed, none comes twice, however many branches wait for the same."""

import asyncio
from dataclasses import dataclass

import pytest
from flows import Order, PaymentCaptured, address_changed
from sqlalchemy import func, insert, select, update

from lib_events.event import Event
from lib_events.event_log import head
from lib_events.testing import wait_until
from lib_workflows import Context, Engine, EventType, StepFailed, WaitTimeout, tables, workflow
from lib_workflows.events import looks as event_looks
from lib_workflows.events import matching as event_matching
from lib_workflows.events import waits as event_waits
from lib_workflows.execution import event_effects
from lib_workflows.execution.completion import completed
from lib_workflows.reading import queries
from lib_workflows.runs import commands
from lib_workflows.values.codec import decode_json, encode_json
from lib_workflows.workers.limits import Limits

A = {"id": "a"}


async def publish(engine, *amounts, order="a"):
    events = [Event.of(PaymentCaptured, Order(id=order, amount=amount), source="/shop") for amount in amounts]
    await engine.database.transact(lambda connection: connection.publish(*events))


async def waits(engine, handle, kind, count=1):
    async def is_waiting():
        run = await engine.database.read(queries.get_run, handle.id)
        counts = [entry["count"] for entry in run.waiting_for if entry["kind"] == kind]
        return run.status == "waiting" and sum(counts) == count

    await wait_until(is_waiting)


@dataclass
class Parcel:
    to: dict[str, str]
    kilos: float


Counted = EventType("shop.things.counted", dict[str, int])
ParcelSent = EventType("parcel.sent", Parcel)
SAME = {"kilos": 5, "to": {"town": "Ulm", "street": "Elm Street"}}


@workflow(name="waits-for-a-parcel")
async def wait_for_a_parcel(ctx: Context) -> float:
    return (await ctx.wait_event(ParcelSent, SAME)).kilos


@pytest.mark.parametrize("comes", ["before", "later"])
async def test_an_event_is_the_one_waited_for_in_whatever_order_its_fields_are_written_and_its_numbers(
    database_url, comes
):
    async with Engine.open(database_url, [wait_for_a_parcel]) as engine:
        handle = await engine.start(wait_for_a_parcel)
        if comes == "later":
            await waits(engine, handle, "wait_event")
        parcel = Parcel({"street": "Elm Street", "town": "Ulm"}, 5.0)
        event = Event.of(ParcelSent, parcel, source="/shop")
        await engine.database.transact(lambda connection: connection.publish(event))
        assert await handle.result(10) == 5.0


@workflow(name="wait-for-a-count")
async def wait_for_a_count(ctx: Context, names: list[str]) -> int:
    return sum((await ctx.wait_event(Counted, dict.fromkeys(names, 3))).values())


async def test_fields_may_have_any_names(database_url, subtests):
    async with Engine.open(database_url, [wait_for_a_count]) as engine:
        for names in ([], [""], ["a,b"], ["a", "b"], [",", "a"], ["["], ['["a"]'], ["]", "["]):
            with subtests.test(names=names):
                handle = await engine.start(wait_for_a_count, names)
                await waits(engine, handle, "wait_event")
                for number in (4, 3):  # another number is nobody's, where there is a name
                    event = Event.of(Counted, dict.fromkeys(names, number), source="/shop")
                    await engine.database.transact(lambda connection, event=event: connection.publish(event))
                assert await handle.result(10) == 3 * len(names)


async def test_a_wait_that_a_release_before_has_registered_otherwise_receives_its_event(database_url):
    limits = Limits(idle_seconds=0.0)
    async with Engine.open(database_url, [wait_for_a_parcel], limits=limits) as engine:
        handle = await engine.start(wait_for_a_parcel)
        await waits(engine, handle, "wait_event")
        await wait_until(lambda: not engine.residence.executors)
        event = Event.of(ParcelSent, Parcel({"town": "Ulm", "street": "Elm Street"}, 5.0), source="/shop")
        as_then = encode_json({"kilos": 5.0, "to": event.data["to"]})
        await engine.database.transact(lambda c: c.execute(update(tables.event_waits).values(match=as_then)))
        await engine.database.transact(lambda connection: connection.publish(event))
        assert await handle.result(10) == 5.0


@workflow(name="three-side-by-side")
async def three_side_by_side(ctx: Context) -> list[int]:
    await ctx.wait_signal(address_changed)
    orders = await ctx.gather(*(ctx.wait_event(PaymentCaptured, A) for _ in range(3)))
    return sorted(order.amount for order in orders)


async def test_branches_that_look_back_side_by_side_get_different_events(database_url):
    async with Engine.open(database_url, [three_side_by_side]) as engine:
        handle = await engine.start(three_side_by_side)
        await publish(engine, 1, 2, 3)
        await handle.signal(address_changed, "go")
        assert await handle.result(10) == [1, 2, 3]


async def test_branches_that_wait_side_by_side_get_different_events(database_url):
    async with Engine.open(database_url, [three_side_by_side]) as engine:
        handle = await engine.start(three_side_by_side)
        await handle.signal(address_changed, "go")
        await waits(engine, handle, "wait_event", 3)
        await publish(engine, 1, 2)
        await publish(engine, 3)
        assert await handle.result(10) == [1, 2, 3]


async def test_an_event_does_not_overtake_one_that_came_while_a_branch_still_looked(database_url, monkeypatch):
    heard, registers = asyncio.Event(), event_effects._register

    async def register_and_hear_late(executor, pending):
        looked = await registers(executor, pending)
        if pending.path == "2/1/1":
            await heard.wait()
        return looked

    monkeypatch.setattr(event_effects, "_register", register_and_hear_late)
    async with Engine.open(database_url, [three_side_by_side]) as engine:
        handle = await engine.start(three_side_by_side)
        await handle.signal(address_changed, "go")
        await wait_until(lambda: are_registered(engine, 3))
        await publish(engine, 1, 2, 3)
        await wait_until(lambda: are_registered(engine, 0))
        executor = engine.residence.executors[handle.id]
        await wait_until(lambda: executor.driver.pending["2/1/1"].look_again)
        heard.set()
        assert await handle.result(10) == [1, 2, 3]


async def are_registered(engine, count):
    registered = select(func.count()).select_from(tables.event_waits)
    return await engine.database.read(lambda connection: connection.scalar(registered)) == count


@workflow(name="one-payment")
async def one_payment(ctx: Context, order: str) -> int:
    return (await ctx.wait_event(PaymentCaptured, {"id": order})).amount


async def test_runs_that_begin_to_wait_together_are_registered_together(database_url, monkeypatch):
    groups, registers = [], event_looks.register_event_waits

    def count(connection, waits):
        groups.append(len(waits))
        return registers(connection, waits)

    monkeypatch.setattr(event_looks, "register_event_waits", count)
    async with Engine.open(database_url, [one_payment]) as engine:
        handles = await engine.start_many(one_payment, [f"order-{number}" for number in range(250)])
        await wait_until(lambda: are_registered(engine, 250))
        assert sum(groups) == 250
        assert len(groups) <= 10
        assert max(groups) <= event_looks.GROUP_LIMIT
        await publish(engine, 7, order="order-99")
        assert await handles[99].result(10) == 7


async def test_a_wait_that_cannot_be_registered_fails_alone(database_url, monkeypatch):
    registers = event_looks.register_event_waits

    def refuse_one(connection, waits):
        if any(decode_json(wait.match)["id"] == "bad" for wait in waits):
            raise ValueError("this one cannot be registered")
        return registers(connection, waits)

    monkeypatch.setattr(event_looks, "register_event_waits", refuse_one)
    async with Engine.open(database_url, [one_payment]) as engine:
        handles = await engine.start_many(one_payment, ["a", "bad", "b"])
        with pytest.raises(StepFailed, match="cannot be registered"):
            await handles[1].result(10)
        await publish(engine, 1, order="a")
        await publish(engine, 2, order="b")
        assert [await handles[0].result(10), await handles[2].result(10)] == [1, 2]


async def test_an_event_that_more_wait_for_than_one_transaction_serves_reaches_all_of_them(database_url, monkeypatch):
    monkeypatch.setattr(event_matching, "SENT_LIMIT", 4)
    async with Engine.open(database_url, [one_payment, three_side_by_side]) as engine:
        handles = await engine.start_many(one_payment, ["a"] * 9)
        branches = await engine.start(three_side_by_side)
        await branches.signal(address_changed, "go")
        await wait_until(lambda: are_registered(engine, 12))
        await publish(engine, 1)
        assert [await handle.result(10) for handle in handles] == [1] * 9
        await wait_until(lambda: are_registered(engine, 2))
        await publish(engine, 2, 3)
        assert await branches.result(10) == [1, 2, 3]


@workflow(name="waits-in-many-ways")
async def waits_in_many_ways(ctx: Context) -> list[int]:
    ways = ({}, {"id": "a"}, {"amount": 1}, {"amount": 1, "id": "a"})
    orders = await ctx.gather(*(ctx.wait_event(PaymentCaptured, match) for match in ways))
    return [order.amount for order in orders]


async def test_what_is_waited_for_is_found_by_type_and_fields(database_url):
    async with Engine.open(database_url, [waits_in_many_ways]) as engine:
        assert await engine.database.read(event_waits.waited_shapes) == {}
        handle = await engine.start(waits_in_many_ways)
        await wait_until(lambda: are_registered(engine, 4))
        shapes = await engine.database.read(event_waits.waited_shapes)
        assert shapes == {PaymentCaptured.name: ["", "amount", "amount,id", "id"]}
        await publish(engine, 1)
        assert await handle.result(10) == [1, 1, 1, 1]


@workflow(name="gives-up-then-waits")
async def gives_up_then_waits(ctx: Context) -> int:
    try:
        async with ctx.timeout(60):
            await ctx.wait_event(PaymentCaptured, A)
    except WaitTimeout:
        return (await ctx.wait_event(PaymentCaptured, A, timeout=60)).amount
    return 0


async def test_an_event_that_came_a_moment_too_late_is_there_for_the_next_wait(database_url):
    async with Engine.open(database_url, [gives_up_then_waits]) as engine:
        handle = await engine.start(gives_up_then_waits)
        await waits(engine, handle, "wait_event")
        executor = engine.residence.executors[handle.id]
        executor.transaction = "held"  # nothing is delivered while a transaction is under way
        await publish(engine, 7)
        await wait_until(lambda: executor._inbox)
        executor._inbox.insert(0, completed(executor.driver.pending["1"], None))
        executor.transaction = None
        executor.turn()
        assert await handle.result(10) == 7


@workflow(name="one-gives-up")
async def one_gives_up(ctx: Context) -> int:
    async def impatient() -> int:
        try:
            async with ctx.timeout(60):
                return (await ctx.wait_event(PaymentCaptured, A)).amount
        except WaitTimeout:
            return 0

    async def patient() -> int:
        return (await ctx.wait_event(PaymentCaptured, A)).amount

    return sum(await ctx.gather(impatient(), patient()))


async def test_an_event_for_a_branch_that_has_given_up_is_for_the_one_that_still_waits(database_url):
    async with Engine.open(database_url, [one_gives_up]) as engine:
        handle = await engine.start(one_gives_up)
        await waits(engine, handle, "wait_event", 2)
        executor = engine.residence.executors[handle.id]
        executor.transaction = "held"
        await publish(engine, 7)
        await wait_until(lambda: executor._inbox)
        executor._inbox.insert(0, completed(executor.driver.pending["1/1/1"], None))
        executor.transaction = None
        executor.turn()
        assert await handle.result(10) == 7


@workflow(name="one-gives-up-what-it-found")
async def one_gives_up_what_it_found(ctx: Context) -> int:
    await ctx.wait_event(PaymentCaptured, {"amount": 7})
    return await one_gives_up.function(ctx)


async def test_an_event_that_a_branch_has_found_that_gave_up_is_for_the_one_that_still_waits(database_url):
    async with Engine.open(database_url, [one_gives_up_what_it_found]) as engine:
        handle = await engine.start(one_gives_up_what_it_found)
        await waits(engine, handle, "wait_event")
        look, go_on = engine.residence.event_looks.look, asyncio.Event()

        async def look_late(*args):
            await go_on.wait()
            return await look(*args)

        engine.residence.event_looks.look = look_late
        await publish(engine, 7)
        executor = engine.residence.executors[handle.id]
        await wait_until(lambda: len(executor.running) == 2)
        executor.transaction = "held"
        go_on.set()
        await wait_until(lambda: executor._inbox and not executor.running)
        executor._inbox.insert(0, completed(executor.driver.pending["2/1/1"], None))
        executor.transaction = None
        executor.turn()
        assert await handle.result(10) == 7


async def test_an_event_that_was_sent_to_a_branch_which_has_given_up_since_is_for_the_one_that_still_waits(
    database_url,
):
    async with Engine.open(database_url, [one_gives_up]) as engine:
        handle = await engine.start(one_gives_up)
        await waits(engine, handle, "wait_event", 2)
        executor, refresh, go_on = engine.residence.executors[handle.id], engine.residence.arrivals._refresh, []

        async def refresh_late(executors):
            await wait_until(lambda: go_on)
            await refresh(executors)

        engine.residence.arrivals._refresh = refresh_late
        await publish(engine, 7)
        await wait_until(lambda: engine.residence.arrivals._refreshing)
        executor.complete(completed(executor.driver.pending["1/1/1"], None))
        go_on.append(True)
        assert await handle.result(10) == 7
        assert not await engine.database.read(lambda c: c.execute(select(tables.messages)).all())


@workflow(name="has-it-otherwise")
async def has_it_otherwise(ctx: Context) -> int:
    return (await ctx.race(ctx.wait_event(PaymentCaptured, A), ctx.wait_signal(address_changed)))[0]


async def test_a_look_that_ends_when_its_branch_waits_no_more_leaves_nobody_waiting(database_url):
    async with Engine.open(database_url, [has_it_otherwise]) as engine:
        look, looking, go_on = engine.residence.event_looks.look, asyncio.Event(), asyncio.Event()

        async def look_late(*args):
            looking.set()
            await go_on.wait()
            return await look(*args)

        engine.residence.event_looks.look = look_late
        handle = await engine.start(has_it_otherwise)
        await asyncio.wait_for(looking.wait(), 10)
        await handle.signal(address_changed, "here")
        await wait_until(lambda: engine.residence.executors[handle.id].driver.outcome)
        go_on.set()
        assert await handle.result(10) == 1
        assert not await engine.database.read(lambda c: c.execute(select(tables.event_waits)).all())


async def test_a_wait_that_is_needed_no_more_is_taken_back(database_url):
    async with Engine.open(database_url, [has_it_otherwise]) as engine:
        handle = await engine.start(has_it_otherwise)
        await waits(engine, handle, "wait_event")
        await handle.signal(address_changed, "here")
        assert await handle.result(10) == 1
        assert not await engine.database.read(lambda c: c.execute(select(tables.event_waits)).all())


async def test_an_event_that_was_found_for_the_life_before_is_for_nobody_however_late_that_is_committed(database_url):
    """The matcher has read who waits, who goes on as new meanwhile: what it sends is for what waited there before."""
    async with Engine.open(database_url, [one_gives_up]) as engine:
        await publish(engine, 1, order="other")
        handle = await engine.start(one_gives_up)
        await waits(engine, handle, "wait_event", 2)
        sent = event_matching.SentEvent(handle.id, "1/1/2", '{"id":"other","amount":1}', 1)

        def send(connection):
            number = commands.wake(connection, handle.id)
            connection.execute(insert(tables.messages).values(event_matching._event_row(sent, number, 0)))

        await engine.database.transact(send)
        await wait_until(lambda: engine.residence.executors[handle.id].seen)
        await publish(engine, 3, 4)
        assert await handle.result(10) == 7


async def test_a_long_log_is_looked_through_in_parts(database_url, monkeypatch):
    monkeypatch.setattr(event_waits, "LOOK_BACK_LIMIT", 10)

    @workflow(name="searching")
    async def searching(ctx: Context) -> list[int]:
        await ctx.wait_signal(address_changed)
        return [(await ctx.wait_event(PaymentCaptured, A)).amount for _ in range(3)]

    async with Engine.open(database_url, [searching]) as engine:
        handle = await engine.start(searching)
        await publish(engine, *range(30), order="other")
        await publish(engine, 1)
        await publish(engine, *range(19), order="other")
        await publish(engine, 2)
        await publish(engine, *range(40), order="other")
        await handle.signal(address_changed, "go")
        await waits(engine, handle, "wait_event")
        await publish(engine, 3)
        assert await handle.result(10) == [1, 2, 3]


@workflow(name="signalled-side-by-side")
async def signalled_side_by_side(ctx: Context) -> str:
    async def impatient() -> str:
        try:
            async with ctx.timeout(60):
                return await ctx.wait_signal(address_changed)
        except WaitTimeout:
            return ""

    async def patient() -> str:
        return await ctx.wait_signal(address_changed)

    return "".join(await ctx.gather(impatient(), patient()))


async def test_a_signal_for_a_branch_that_has_given_up_is_for_the_one_that_still_waits(database_url):
    async with Engine.open(database_url, [signalled_side_by_side]) as engine:
        handle = await engine.start(signalled_side_by_side)
        await waits(engine, handle, "wait_signal", 2)
        executor = engine.residence.executors[handle.id]
        executor.transaction = "held"
        await handle.signal(address_changed, "here")
        await wait_until(lambda: executor._inbox)
        executor._inbox.insert(0, completed(executor.driver.pending["1/1/1"], None))
        executor.transaction = None
        executor.turn()
        assert await asyncio.wait_for(handle.result(), 10) == "here"


@workflow(name="started-by-each", on=PaymentCaptured)
async def started_by_each(ctx: Context, order: Order) -> int:
    return order.amount


async def test_large_events_are_matched_few_at_a_time(database_url, monkeypatch):
    """Two hundred of them took longer than a transaction may, and nothing was matched any more."""
    monkeypatch.setattr(event_waits, "MATCH_BYTES", 1)
    async with Engine.open(database_url, [started_by_each], works=False) as engine:
        await publish(engine, 1, 2, 3, 4, 5)
        await wait_until(lambda: engine.database.read(is_placed, 5))
        found, reached = await engine.database.read(event_waits.next_of_types, [PaymentCaptured.name], 1, 5)
        assert ([position for position, _ in found], reached) == ([2], 2)
        assert await engine.database.read(event_waits.next_of_types, ["nobody.publishes.this"], 1, 5) == ([], 5)
    async with Engine.open(database_url, [started_by_each]) as engine:
        await wait_until(lambda: engine.database.read(have_ended, 5))
        outputs = await engine.database.read(lambda c: sorted(c.scalars(select(tables.runs.c.output))))
        assert outputs == ["1", "2", "3", "4", "5"]


def is_placed(connection, position):
    return head(connection).position >= position


def have_ended(connection, count):
    return connection.scalar(select(func.count()).where(tables.runs.c.status == "completed")) == count
