"""What the documentation shows runs."""

import asyncio
import importlib.util
import inspect
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from sqlalchemy import select

from lib_events.bench import bench
from lib_events.event import Event
from lib_events.testing import wait_until
from lib_events.testing.collector import collecting
from lib_events.tracing.environment import open_traces
from lib_workflows import Engine, NonRetryable, Principal, StepFailed
from lib_workflows.reading import queries
from lib_workflows.tables import runs
from lib_workflows.testing import GivenTokens, environment

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name):
    """An example file, loaded as `--workflows` loads it."""
    specification = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


async def test_mails_go_out_in_a_queue_with_limits(database_url):
    mails = load("send_mails")
    async with Engine.open(database_url, workflows=[mails.send_mail]) as engine:
        assert (await engine.queues.get("mail")).limits == mails.MAIL.limits
        handles = [await engine.start(mails.send_mail, mails.Mail(customer="ada", text=text)) for text in ("a", "b")]
        for handle in handles:
            await handle.result(timeout=10)


async def test_a_greeting_is_traced_where_a_collector_is_named(sqlite_url, monkeypatch):
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        said = await load("traces").main(sqlite_url)
        async with open_traces("greeter") as traces, Engine.open(sqlite_url, workflows=[], traces=traces):
            await asyncio.to_thread(collector.wait_for, "step greet", "run greeting")
    (span,) = collector.named("step greet")
    assert said == f"Hello, Ada! This is 00-{span.trace_id}-{span.span_id}-01"
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
    assert "Hello, Ada!" in await load("traces").main(sqlite_url)


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


@pytest.fixture
def orders_url():
    """Another team's service, which takes one token."""

    class Orders(BaseHTTPRequestHandler):
        def do_GET(self):
            is_known = self.headers["authorization"] == "Bearer a token your test service takes"
            self.send_response(200 if is_known else 401)
            self.end_headers()
            self.wfile.write(b'["tea for Ada"]')

        def log_message(self, *_):
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Orders) as server:
        Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.fixture
def my_orders(orders_url, monkeypatch):
    monkeypatch.setenv("ORDERS_URL", orders_url)
    return load("my_orders").my_orders


# --8<-- [start:tokens]
async def test_orders_are_read_for_whoever_started_until_they_take_it_back(sqlite_url, my_orders, orders_url):
    source = GivenTokens({orders_url: "a token your test service takes"})
    async with environment(sqlite_url, [my_orders], tokens=source) as env:
        assert await env.result(await env.engine.start(my_orders)) == ["tea for Ada"]
        assert source.asked[0].scope == ("orders",)
        source.withdraw()  # from here on steps are refused
        with pytest.raises(StepFailed, match="withdrawn"):
            await env.result(await env.engine.start(my_orders))


# --8<-- [end:tokens]


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


def run(name, *arguments):
    command = [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.opened_elsewhere
def test_a_program_has_the_engine_within_it(database_url):
    assert [run("embedded_engine", database_url) for _ in range(2)] == ["160.0\n", "160.0\n"]


@pytest.mark.opened_elsewhere
def test_an_order_is_placed_with_its_event(database_url):
    assert run("place_order", database_url) == "shop.order.placed 42\n"


async def ask_to_send(engine, handle):
    async def asked():
        return (await engine.database.read(lambda c: queries.list_approvals(c, run=handle.id))).items

    return (await wait_until(asked))[0]


async def booked(engine, parcels):
    return await engine.database.read(lambda c: list(c.scalars(select(parcels.bookings.c.parcel))))


async def test_payments_are_settled_together_and_large_ones_found(database_url):
    module = load("settle_payments")
    flows = [module.settle, module.first_large_payment, module.thank_for_large_payments]
    async with environment(database_url, flows) as env:
        handle = await env.engine.start(module.first_large_payment, "b")
        paid = [("a", 100_000), ("b", 5), ("a", 7), ("b", 100_001)]
        events = [
            Event.of(module.PaymentCaptured, module.Payment(merchant=merchant, cents=cents), source="/market")
            for merchant, cents in paid
        ]
        await env.engine.database.transact(lambda connection: connection.publish(*events))
        assert (await env.result(handle)).cents == 100_001
        await env.skip(timedelta(seconds=5))
        ended = select(runs.c.output).where(runs.c.output.is_not(None), runs.c.id != handle.id)
        outputs = await env.engine.database.read(lambda connection: sorted(connection.scalars(ended)))
        settled = ['"100006 to b"', '"100007 to a"']
        assert outputs == [*settled, '"thanks to a"', '"thanks to b"', "null", "null"]


async def test_a_parcel_is_changed_while_it_is_under_way_and_sent_once_somebody_agrees(database_url):
    parcels = load("ship_parcel")
    async with Engine.open(database_url, [parcels.ship_parcel, parcels.price_parcel]) as engine:
        handle = await engine.start(parcels.ship_parcel, parcels.Parcel(to="Ada"), id="parcel-1")
        await handle.signal(parcels.address_changed, "Elm Street")  # kept until the run waits for it
        assert await handle.update(parcels.weight_changed, 600, timeout=10) == 10.0
        approval = await ask_to_send(engine, handle)
        assert approval.text == "Send label for Ada to Elm Street for 10.00?"
        await handle.decide(approval.name, approved=True, by=Principal("grace"))
        assert await handle.result(10) == "label for Ada, to Elm Street, for 10.00"
        assert await booked(engine, parcels) == ["parcel-1"]


async def test_a_parcel_that_somebody_does_not_want_sent_is_booked_no_more(database_url):
    parcels = load("ship_parcel")
    async with Engine.open(database_url, [parcels.ship_parcel, parcels.price_parcel]) as engine:
        handle = await engine.start(parcels.ship_parcel, parcels.Parcel(to="Ada"))
        await handle.signal(parcels.address_changed, "Elm Street")
        await handle.update(parcels.weight_changed, 600, timeout=10)
        approval = await ask_to_send(engine, handle)
        await handle.decide(approval.name, approved=False, by=Principal("grace"))
        with pytest.raises(NonRetryable, match="grace does not want it sent"):
            await handle.result(10)
        assert await booked(engine, parcels) == []


async def test_the_tests_of_an_example_pass(monkeypatch, tmp_path, subtests):
    monkeypatch.syspath_prepend(EXAMPLES)
    for name, test in vars(load("test_my_flows")).items():
        if not name.startswith("test_"):
            continue
        folder = tmp_path / name
        folder.mkdir()
        with subtests.test(name):
            await test(folder) if inspect.iscoroutinefunction(test) else test()
