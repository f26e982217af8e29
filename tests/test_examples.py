"""What the documentation shows runs."""

import importlib.util
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lib_events.bench import bench
from lib_events.event import Event
from lib_workflows import Engine, StepFailed, queries
from lib_workflows.testing import environment

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name):
    """An example file, loaded as `--workflows` loads it."""
    specification = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def flows():
    return load("my_flows")


@pytest.fixture
def my_handlers():
    return load("my_handlers")


async def test_a_booking_that_is_paid_is_confirmed_as_paid(flows, database_url):
    async with Engine.open(database_url, workflows=[flows.book_a_room]) as engine:
        handle = await engine.start(flows.book_a_room, flows.Booking(guest="Ada", nights=2), id="booking-1")
        payment = flows.Payment(booking="booking-1", amount=160)

        def pay(connection):
            connection.publish(Event.of(flows.PaymentReceived, payment, source=connection.source))

        await engine.database.transact(pay)
        assert await handle.result(timeout=10) == flows.Confirmation(booking="booking-1", price=160, paid=True)


async def test_a_booking_nobody_pays_for_is_confirmed_as_unpaid(flows, sqlite_url):
    async with environment(sqlite_url, workflows=[flows.book_a_room]) as env:
        handle = await env.engine.start(flows.book_a_room, flows.Booking(guest="Ada"))
        assert (await env.result(handle)).paid is False  # a quarter of an hour passes at once


# --8<-- [start:handlers]
async def test_an_order_is_billed_and_mailed(my_handlers, capsys):
    async with bench([my_handlers.bill, my_handlers.send_mail]) as found:
        event = await found.publish(my_handlers.OrderPlaced, my_handlers.Order(id="42", cents=995))
        await found.settle()
        (billed,) = await found.events("example.order.billed")
        assert billed.data == {"order": "42", "cents": 995}
        assert billed.extensions["causationid"] == event.id
        assert await found.dead_letters() == []
    assert capsys.readouterr().out == f"Please pay 9.95 [example-mail:/bench:{billed.id}]\n"


async def test_an_order_nobody_can_pay_is_put_aside(my_handlers):
    async with bench([my_handlers.bill]) as found:
        await found.publish(my_handlers.OrderPlaced, my_handlers.Order(id="43", cents=2_000_000))
        await found.settle()
        (letter,) = await found.dead_letters()
        assert letter.error == "GiveUp: nobody pays that much"


# --8<-- [end:handlers]


async def test_a_price_is_watched_day_after_day_on_a_short_history(sqlite_url):
    watching = load("watch_prices")
    async with environment(sqlite_url, [watching.watch_price]) as env:
        handle = await env.engine.start(watching.watch_price, watching.Watch("copper", 50), id="copper")
        for day in range(3):
            await env.until_resting()
            run = await env.engine.database.read(queries.get_run, handle.id)
            assert (run.input["days"], run.tags) == (day, {"price": "60.0"})
            assert len(await env.engine.database.read(queries.get_history, handle.id)) <= 5
            await env.skip(timedelta(days=1))


async def test_a_market_that_does_not_exist_is_asked_once(sqlite_url):
    watching = load("watch_prices")
    async with environment(sqlite_url, [watching.watch_price]) as env:
        handle = await env.engine.start(watching.watch_price, watching.Watch("c0pper", 50))
        with pytest.raises(StepFailed, match="after 1 attempt") as caught:
            await env.result(handle)
        assert caught.value.error.type == "NonRetryable"


async def test_a_report_comes_each_morning_by_the_clock_on_the_wall(sqlite_url):
    reports = load("nightly_report")
    friday = datetime(2026, 3, 27, 0, tzinfo=UTC)
    async with environment(sqlite_url, [reports.nightly_report], start=friday) as env:
        await reports.report_on_the_north(env.engine)
        await env.skip(timedelta(days=4))
        found = await env.engine.schedules.runs("nightly-report")
        # In the night to Sunday clocks went forward: an hour earlier by UTC. On the weekend there was none.
        assert [run.id for run in found] == [
            "schedule~nightly-report~20260330T040000Z",
            "schedule~nightly-report~20260327T050000Z",
        ]
        north = await env.engine.schedules.runs("report-north")
        assert [f"{run.due_at:%d %H:%M}" for run in north] == ["30 00:30", "29 01:30", "28 01:30", "27 01:30"]
        handle = env.engine.handle(north[0].id, reports.nightly_report)
        assert await handle.result(10) == reports.Report("north", "2026-03-30T00:30:00+00:00")
