"""The same promises everywhere: one suite over SQLite and PostgreSQL, the bundled broker and a cluster of three.

Two services, each with a database and a way to the broker: what one commits, the other handles, once and in order.
"""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from pydantic import BaseModel

from lib_events.database import Connection, Database, open_database
from lib_events.event import Cause, Event, EventRegistry, EventType
from lib_events.event_log import SCHEMA, read_after
from lib_events.handling.dead_letters import redrive
from lib_events.handling.subscriptions import Subscriptions
from lib_events.lifecycle import running
from lib_events.nats.access import NatsAccess
from lib_events.nats.broker import Broker
from lib_events.nats.importer import Importer
from lib_events.nats.relay import Relay
from lib_events.subscription import GiveUp, subscribe
from lib_events.tables import dead_letters
from lib_events.testing import wait_until

# nats-py leaves an attempt to connect that failed to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Order(BaseModel):
    number: int


class Bill(BaseModel):
    order: int


OrderPlaced = EventType("shop.order.placed", Order)
Billed = EventType("shop.order.billed", Bill)
UNPAYABLE = 13


@subscribe(OrderPlaced, durable="billing", attempts=1)
def bill(connection: Connection, order: Order) -> None:
    if order.number == UNPAYABLE:
        raise GiveUp("nobody pays that")
    connection.publish(Event.of(Billed, Bill(order=order.number), source=connection.source))


@dataclass
class Services:
    """The shop publishes orders; billing imports them and answers each with a bill of its own."""

    shop: Database
    billing: Database
    access: dict[str, Any]

    @asynccontextmanager
    async def selling(self):
        """The shop, connected."""
        async with running(broker := Broker(self.access["app-svc"], service="app-svc"), Relay(self.shop, broker)):
            yield

    @asynccontextmanager
    async def billing_orders(self):
        """Billing, connected and handling."""
        broker = Broker(self.access["auth-svc"], service="auth-svc")
        registry = EventRegistry(OrderPlaced, Billed)
        importer = Importer(self.billing, broker, sources=["app-svc"], types=["shop.*"], registry=registry)
        async with running(broker, Relay(self.billing, None), importer, Subscriptions(self.billing, [bill])):
            yield

    async def place(self, *numbers, cause=None):
        """Commit orders."""
        source = self.shop.source
        await self.shop.write(
            events=[Event.of(OrderPlaced, Order(number=n), source=source, cause=cause) for n in numbers]
        )

    async def bills(self):
        """The orders that were billed, in order."""
        page = await self.billing.read(lambda c: read_after(c, 0, types=[Billed.name], limit=10_000))
        return [placed.event for placed in page.events]

    async def until_billed(self, numbers):
        async def done():
            return [event.data["order"] for event in await self.bills()] == list(numbers)

        await wait_until(done, timeout=60)


@pytest.fixture(params=["bundled", "cluster"])
def access(request):
    """How each service reaches the broker."""
    if request.param == "cluster":
        cluster = request.getfixturevalue("nats_cluster")
        return {service: cluster.access(service) for service in ("app-svc", "auth-svc")}
    server = request.getfixturevalue("fresh_nats_server")
    return {
        service: NatsAccess.parse(server.url, seed_file=server.credentials(service))
        for service in ("app-svc", "auth-svc")
    }


@pytest_asyncio.fixture
async def services(access, database_url, request, tmp_path):
    if database_url.startswith("sqlite"):
        other = f"sqlite:///{tmp_path}/other.db"
    else:
        other = database_url.replace("schema=", "schema=other_")
    shop = await open_database(database_url, service="app-svc", schemas=[SCHEMA])
    billing = await open_database(other, service="auth-svc", schemas=[SCHEMA])
    yield Services(shop, billing, access)
    await shop.close()
    await billing.close()


async def test_what_one_service_commits_the_other_handles_once_in_order_and_as_its_cause(services):
    cause = Cause(correlation_id="a story", principal="alice")
    async with services.selling(), services.billing_orders():
        await services.place(*range(10), cause=cause)
        await asyncio.gather(*(services.place(number) for number in range(20, 30)))
        await services.place(99)
        await wait_until_count(services, 21)
    orders = {event.data["order"]: event for event in await services.bills()}
    assert list(orders)[:10] == list(range(10))
    assert list(orders)[-1] == 99
    assert orders[0].extensions["correlationid"] == "a story"
    assert orders[0].extensions["principal"] == "alice"


async def wait_until_count(services, count):
    async def complete():
        return len(await services.bills()) >= count

    await wait_until(complete, timeout=60)


async def test_who_is_away_misses_nothing_and_repeats_nothing(services):
    await services.place(1, 2)  # before anybody is connected
    async with services.selling():
        await services.place(3)
        async with services.billing_orders():
            await services.until_billed([1, 2, 3])
        await services.place(4, 5)  # while billing is away
        async with services.billing_orders():
            await services.until_billed([1, 2, 3, 4, 5])
    async with services.billing_orders():
        await services.place(6)  # while the shop is away
        async with services.selling():
            await services.until_billed([1, 2, 3, 4, 5, 6])


async def test_what_cannot_be_handled_is_put_aside_and_may_be_redriven(services):
    async with services.selling(), services.billing_orders():
        await services.place(12, UNPAYABLE, 14)
        await services.until_billed([12, 14])
        (letter,) = await services.billing.read(lambda c: c.execute(dead_letters.select()).all())
        assert letter.error == "GiveUp: nobody pays that"
        await services.billing.transact(redrive, letter.id, lambda event: _with_number(event, 15))
        await services.until_billed([12, 14, 15])


def _with_number(event, number):
    return Event.from_dict(event.to_dict() | {"data": {"number": number}})
