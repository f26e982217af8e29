"""The kit for testing handlers: publish, settle, look; and its clock."""

from datetime import timedelta
from itertools import pairwise

from pydantic import BaseModel

from lib_events.bench import BenchClock, bench
from lib_events.database import Connection
from lib_events.event import Event, EventType
from lib_events.subscription import GiveUp, TryLater, current_delivery, subscribe


class Order(BaseModel):
    id: str
    cents: int


class Bill(BaseModel):
    order: str
    cents: int


OrderPlaced = EventType("shop.order.placed", Order)
Billed = EventType("shop.billed", Bill)
Thanked = EventType("shop.thanked", Bill)


@subscribe(OrderPlaced, durable="billing")
def bill(connection: Connection, order: Order) -> None:
    if order.cents < 0:
        raise ValueError("nobody is billed less than nothing")
    found = Bill(order=order.id, cents=order.cents)
    connection.publish(Event.of(Billed, found, source=connection.source, subject=order.id))


@subscribe(Billed, durable="thanks")
def thank(connection: Connection, found: Bill) -> None:
    connection.publish(Event.of(Thanked, found, source=connection.source))


async def test_what_handlers_publish_is_handled_too(database_url):
    async with bench([bill, thank], url=database_url) as found:
        for number in range(20):
            await found.publish(OrderPlaced, Order(id=str(number), cents=number))
        await found.settle()
        assert await found.published(Billed) == [Bill(order=str(number), cents=number) for number in range(20)]
        assert await found.published(Thanked) == await found.published(Billed)
        assert await found.dead_letters() == []


async def test_nobody_waits_for_a_retry_and_the_dead_letter_says_why():
    attempts = []

    @subscribe(OrderPlaced, durable="stubborn", attempts=8)
    async def stubborn(order: Order) -> None:
        attempts.append(current_delivery().attempt)
        if order.id == "no":
            raise ConnectionError("away")

    clock = BenchClock()
    before = clock.micros()
    async with bench([stubborn], clock=clock) as found:
        event = await found.publish(OrderPlaced, Order(id="no", cents=1))
        await found.publish(OrderPlaced, Order(id="yes", cents=1), source="/elsewhere")
        await found.settle()
        (letter,) = await found.dead_letters()
    assert (letter.event.id, letter.error, letter.attempts) == (event.id, "ConnectionError: away", 8)
    assert attempts == [*range(1, 9), 1]
    assert clock.micros() - before > 6_000_000


async def test_nobody_waits_for_what_a_handler_wants_later(database_url):
    tried = []
    clock = BenchClock()

    @subscribe(OrderPlaced, durable="later")
    async def later(order: Order) -> None:
        tried.append((order.id, current_delivery().attempt, clock.micros()))
        if order.id == "no":
            raise TryLater("never", seconds=3600) if len(tried) < 5 else GiveUp("it is enough")
        if current_delivery().attempt < 3:
            raise TryLater("in a week", seconds=7 * 86_400)

    async with bench([later], url=database_url, clock=clock) as found:
        await found.publish(OrderPlaced, Order(id="yes", cents=1))
        await found.settle()
        assert await found.dead_letters() == []
        await found.publish(OrderPlaced, Order(id="no", cents=1))
        await found.settle()
        (letter,) = await found.dead_letters()
    assert [(order, attempt) for order, attempt, _ in tried] == [
        ("yes", 1),
        ("yes", 2),
        ("yes", 3),
        ("no", 1),
        ("no", 2),
    ]
    weeks, hours = ([at for order, _, at in tried if order == name] for name in ("yes", "no"))
    assert [round((after - before) / 1_000_000) for before, after in pairwise(weeks)] == [7 * 86_400] * 2
    assert [round((after - before) / 1_000_000) for before, after in pairwise(hours)] == [3600]
    assert (letter.error, letter.attempts) == ("GiveUp: it is enough", 2)


async def test_events_have_the_time_of_the_bench():
    async with bench([bill]) as found:
        await found.publish(OrderPlaced, Order(id="old", cents=1))
        (old,) = await found.events("shop.order.*")
        found.clock.advance(timedelta(hours=2))
        await found.publish(OrderPlaced, Order(id="new", cents=1))
        _, new = await found.events(OrderPlaced.name)
    assert new.time - old.time == timedelta(hours=2)
