"""What the documentation shows runs."""

import importlib.util
from pathlib import Path

import pytest

from lib_events.event import Event
from lib_workflows import Engine
from lib_workflows.testing import environment

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def flows():
    """The example file, loaded as `--workflows` loads it."""
    specification = importlib.util.spec_from_file_location("my_flows", EXAMPLES / "my_flows.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


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
