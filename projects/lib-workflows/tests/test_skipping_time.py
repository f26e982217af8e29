"""An environment whose time skips: what is on its way takes real time, and arrives before it does."""

from datetime import UTC, datetime, timedelta

import pytest
from flows import Order, PaymentCaptured, address_changed
from sqlalchemy import select

from lib_events.clock import to_datetime
from lib_events.event import Event
from lib_workflows import Context, DefinitionError, RunCancelled, WaitTimeout, workflow
from lib_workflows.tables import messages, runs
from lib_workflows.testing import environment

HOUR = timedelta(hours=1)


@workflow(name="hears")
async def hears(ctx: Context) -> str:
    """Wait for an hour at most."""
    try:
        return (await ctx.wait_event(PaymentCaptured, timeout=HOUR)).id
    except WaitTimeout:
        return "late"


@workflow(name="tells-later")
async def tells_later(ctx: Context) -> None:
    """Tell in a minute."""
    await ctx.sleep(60)
    await ctx.publish(PaymentCaptured, Order(id="paid", amount=1))


@workflow(name="hears-of-its-sibling")
async def hears_of_its_sibling(ctx: Context) -> str:
    """Have both as children."""
    heard, _ = await ctx.gather(ctx.child(hears), ctx.child(tells_later))
    return heard


@workflow(name="is-started", on=PaymentCaptured)
async def is_started(ctx: Context, order: Order) -> str:
    return f"{order.id} {ctx.now().year}"


async def test_an_event_starts_a_run_in_the_time_of_the_environment(database_url):
    async with environment(database_url, [is_started], start=datetime(2001, 1, 1, tzinfo=UTC)) as env:
        event = Event.of(PaymentCaptured, Order(id="paid", amount=1), source="/shop")
        await env.engine.database.transact(lambda c: c.publish(event))
        await env.until_resting()
        assert await env.engine.database.read(lambda c: c.scalars(select(runs.c.output)).all()) == ['"paid 2001"']


async def test_what_people_do_is_done_in_the_time_of_the_environment(database_url):
    def times(connection):
        sent = connection.scalars(select(messages.c.sent_at)).all()
        return [*sent, *connection.scalars(select(runs.c.ended_at).where(runs.c.ended_at.is_not(None)))]

    async with environment(database_url, [hears], start=datetime(2001, 1, 1, tzinfo=UTC)) as env:
        for handle in [await env.engine.start(hears, delay=HOUR) for _ in range(2)]:
            await handle.signal(address_changed, "there")
        await handle.cancel()
        found = await env.engine.database.read(times)
        assert len(found) == 3
        assert {to_datetime(micros).year for micros in found} == {2001}


@workflow(name="never-begins", queue="paused")
async def never_begins(ctx: Context) -> None: ...


@workflow(name="has-one-that-never-begins")
async def has_one_that_never_begins(ctx: Context) -> None:
    await ctx.child(never_begins)


async def test_a_child_that_never_began_is_cancelled_in_the_time_of_the_environment(database_url):
    flows = [has_one_that_never_begins, never_begins]
    async with environment(database_url, flows, start=datetime(2001, 1, 1, tzinfo=UTC)) as env:
        await env.engine.queues.pause("paused")
        handle = await env.engine.start(has_one_that_never_begins)
        await env.until_resting()
        await handle.cancel()
        with pytest.raises(RunCancelled):
            await env.result(handle)
        ended = await env.engine.database.read(lambda c: c.scalars(select(runs.c.ended_at)).all())
        assert [to_datetime(micros).year for micros in ended] == [2001, 2001]


async def test_an_event_of_a_run_reaches_another_before_the_time_of_that_one_is_over(database_url):
    async with environment(database_url, [hears, tells_later, hears_of_its_sibling]) as env:
        for _ in range(5):
            assert await env.result(await env.engine.start(hears_of_its_sibling)) == "paid"


async def test_an_event_of_the_test_reaches_a_run_before_its_time_is_over(database_url):
    async with environment(database_url, [hears]) as env:
        for _ in range(5):
            handle = await env.engine.start(hears)
            await env.until_resting()
            event = Event.of(PaymentCaptured, Order(id="paid", amount=1), source="/shop")
            await env.engine.database.transact(lambda c, event=event: c.publish(event))
            await env.until_resting()
            assert await handle.status() == "completed"
            assert await env.result(handle) == "paid"


@pytest.mark.parametrize("start", [datetime(2026, 1, 1), "2026-01-01"])  # noqa: DTZ001 - what is refused
async def test_time_begins_at_a_moment_that_is_the_same_on_every_machine(sqlite_url, start):
    with pytest.raises(DefinitionError, match="start of an environment must be a datetime with a time zone"):
        async with environment(sqlite_url, [hears], start=start):
            pass
