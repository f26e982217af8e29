"""Durable subscriptions: exactly once, in order, and no poison event blocks the rest."""

import asyncio

import pytest
import pytest_asyncio
from pydantic import BaseModel
from sqlalchemy import select, text

from lib_events.database import open_database
from lib_events.event import Event, EventType
from lib_events.event_log import SCHEMA, append_writes, read_after
from lib_events.handling import consumer, retries
from lib_events.handling.subscriptions import Subscriptions
from lib_events.lifecycle import running
from lib_events.nats.relay import Relay
from lib_events.subscription import subscribe
from lib_events.tables import dead_letters, subscription_cursors
from lib_events.testing import wait_until


class Note(BaseModel):
    number: int


Noted = EventType("test.noted", Note)
Copied = EventType("test.copied", Note)
Other = EventType("other.thing", Note)


@pytest_asyncio.fixture
async def database(database_url):
    opened = await open_database(database_url, service="app-svc", schemas=[SCHEMA])
    await opened.transact(
        lambda connection: connection.execute(text("CREATE TABLE handled (number INTEGER, who TEXT, turn INTEGER)"))
    )
    async with running(Relay(opened, None)):
        yield opened
    await opened.close()


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    monkeypatch.setattr(retries, "FIRST_RETRY_SECONDS", 0.01)


def noted(number, event_type=Noted):
    return Event.of(event_type, Note(number=number), source="/app-svc")


async def publish(database, numbers, event_type=Noted):
    await asyncio.gather(*(database.write(events=[noted(number, event_type)]) for number in numbers))


def record(connection, event, who="a"):
    turn = "(SELECT count(*) FROM handled WHERE who = :w)"  # a table by itself keeps no order
    connection.execute(text(f"INSERT INTO handled VALUES (:n, :w, {turn})"), {"n": event.data["number"], "w": who})


async def handled(database, who="a"):
    def read(connection):
        return list(connection.scalars(text("SELECT number FROM handled WHERE who = :w ORDER BY turn"), {"w": who}))

    return await database.read(read)


async def until_handled(database, expected, who="a"):
    async def complete():
        return len(await handled(database, who)) >= len(expected)

    await wait_until(complete)
    assert await handled(database, who) == expected


async def test_every_subscription_gets_its_types_in_order_from_the_beginning(database):
    @subscribe(Noted, durable="one")
    def one(connection, event):
        record(connection, event, "one")

    @subscribe("test.*", Other, durable="all")
    def everything(connection, event):
        record(connection, event, "all")

    await publish(database, range(300))
    await publish(database, [300], Other)
    async with running(Subscriptions(database, [one, everything])):
        await publish(database, [301])
        await until_handled(database, [*range(300), 301], "one")
        await until_handled(database, list(range(302)), "all")


async def test_a_new_subscription_may_begin_at_the_end(database):
    @subscribe(Noted, durable="new", start="now")
    def new(connection, event):
        record(connection, event)

    await publish(database, range(3))
    await wait_until(lambda: database.read(lambda connection: read_after(connection, 0).position == 3))
    async with running(Subscriptions(database, [new])):
        await wait_until(lambda: database.read(lambda c: c.scalar(select(subscription_cursors.c.position)) == 3))
        await publish(database, [3])
        await until_handled(database, [3])


async def test_what_a_handler_writes_and_publishes_is_committed_with_the_cursor(database):
    @subscribe(Noted, durable="copy")
    def copy(connection, event):
        record(connection, event)
        connection.publish(Event.of(Copied, event.payload(Noted), source=connection.source))

    event = noted(7)
    await database.write(events=[event])

    async def copies():
        page = await database.read(lambda connection: read_after(connection, 0, types=["test.copied"]))
        return page.events

    async with running(Subscriptions(database, [copy])):
        (copied,) = await wait_until(copies)
    assert copied.event.extensions["causationid"] == event.id
    assert copied.event.extensions["correlationid"] == event.extensions["correlationid"]


async def test_each_event_is_handled_once_however_often_the_loop_is_killed(database):
    @subscribe(Noted, durable="once")
    def once(connection, event):
        record(connection, event)

    writing = asyncio.create_task(publish(database, range(2000)))
    while len(await handled(database)) < 2000:
        loop = Subscriptions(database, [once])
        loop.start()
        await asyncio.sleep(0.01)  # wherever this meets the loop, its transaction is whole
        await loop.stop()
        if writing.done():
            async with running(Subscriptions(database, [once])):
                await wait_until(lambda: handled_all(database))
    assert sorted(await handled(database)) == list(range(2000))
    await writing


async def handled_all(database):
    return len(await handled(database)) >= 2000


@pytest.mark.postgresql
async def test_several_processes_share_a_subscription_and_handle_each_event_once(postgresql_url):
    first, second = [await open_database(postgresql_url, service="app-svc", schemas=[SCHEMA]) for _ in range(2)]
    await first.transact(
        lambda connection: connection.execute(text("CREATE TABLE handled (number INTEGER, who TEXT, turn INTEGER)"))
    )

    @subscribe(Noted, durable="shared")
    def shared(connection, event):
        record(connection, event)

    async with running(Relay(first, None), Subscriptions(first, [shared]), Subscriptions(second, [shared])):
        for start in range(0, 500, 50):
            await publish(second, range(start, start + 50))
        await until_handled(first, list(range(500)))
    await first.close()
    await second.close()


async def test_a_poison_event_becomes_a_dead_letter_and_blocks_nothing(database, caplog):
    calls = []

    @subscribe(Noted, durable="poisoned", attempts=3)
    def poisoned(connection, event):
        record(connection, event)
        if event.data["number"] in (5, 6):
            calls.append(event.data["number"])
            raise ValueError("I cannot take this")

    await publish(database, range(10))
    async with running(Subscriptions(database, [poisoned])):
        await until_handled(database, [0, 1, 2, 3, 4, 7, 8, 9])
    letters = await database.read(lambda connection: connection.execute(select(dead_letters)).all())
    assert [(letter.durable, letter.position, letter.attempts) for letter in letters] == [
        ("poisoned", 6, 3),
        ("poisoned", 7, 3),
    ]
    assert letters[0].error == "ValueError: I cannot take this"
    assert "poisoned" in letters[0].stack
    assert calls.count(5) >= 3
    assert "gives up event" in caplog.text


async def test_a_handler_that_fails_for_a_while_is_tried_again(database):
    failures = []

    @subscribe(Noted, durable="shaky", attempts=5)
    def shaky(connection, event):
        if event.data["number"] == 1 and len(failures) < 3:
            failures.append(event)
            raise ConnectionError
        record(connection, event)

    await publish(database, range(3))
    async with running(Subscriptions(database, [shaky])):
        await until_handled(database, [0, 1, 2])
    assert await database.read(lambda connection: connection.execute(select(dead_letters)).all()) == []


async def test_rows_refused_after_the_handler_are_its_failure_too(database):
    bad = noted(99)
    await database.write(events=[bad])

    @subscribe(Noted, durable="rows", attempts=2)
    def rows(connection, event):
        record(connection, event)
        if event.data["number"] == 3:
            connection.write(*append_writes([bad]))  # its id is in the log already

    await publish(database, range(6))
    async with running(Subscriptions(database, [rows])):
        await until_handled(database, [99, 0, 1, 2, 4, 5])
    letters = await database.read(lambda connection: connection.execute(select(dead_letters)).all())
    assert [letter.position for letter in letters] == [5]


async def test_the_cursor_moves_over_long_stretches_without_an_event_for_us(database, monkeypatch):
    monkeypatch.setattr(consumer, "SKIP_LIMIT", 10)

    @subscribe(Noted, durable="rare")
    def rare(connection, event):
        record(connection, event)

    async with running(Subscriptions(database, [rare])):
        await publish(database, range(50), Other)

        async def moved():
            return await database.read(lambda c: (c.scalar(select(subscription_cursors.c.position)) or 0) >= 40)

        await wait_until(moved)
        await publish(database, [1])
        await until_handled(database, [1])


def test_durable_names_differ():
    handlers = [subscribe(Noted, durable="same")(record), subscribe(Other, durable="same")(record)]
    with pytest.raises(ValueError, match="durable names must differ"):
        Subscriptions(None, handlers)


def test_a_subscription_names_a_type():
    with pytest.raises(ValueError, match="must name an event type"):
        subscribe(durable="none")
