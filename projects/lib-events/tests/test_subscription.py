"""What a handler may do to whoever runs it: whatever it raises, its event is tried again and then put aside."""

import asyncio

import pytest
import pytest_asyncio
from pydantic import BaseModel
from sqlalchemy import select

from lib_events.database import Connection, open_database
from lib_events.event import Event, EventType
from lib_events.event_log import SCHEMA
from lib_events.handling import retries
from lib_events.handling.subscriptions import Subscriptions
from lib_events.lifecycle import running
from lib_events.nats.relay import Relay
from lib_events.subscription import subscribe
from lib_events.tables import dead_letters
from lib_events.testing import wait_until


class Note(BaseModel):
    number: int


class Odd(BaseException):
    """No error, as far as Python is concerned."""


Noted = EventType("test.noted", Note)


@pytest_asyncio.fixture
async def database(database_url):
    opened = await open_database(database_url, service="app-svc", schemas=[SCHEMA])
    async with running(Relay(opened, None)):
        yield opened
    await opened.close()


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    monkeypatch.setattr(retries, "FIRST_RETRY_SECONDS", 0.001)


def subscribed(kind, do):
    decorate = subscribe(Noted, durable="odd", attempts=2)
    if kind == "transaction":

        def transaction(connection: Connection, note: Note) -> None:
            do(note.number)

        return decorate(transaction)
    if kind == "async":

        async def on_the_loop(note: Note) -> None:
            do(note.number)

        return decorate(on_the_loop)

    def in_a_thread(note: Note) -> None:
        do(note.number)

    return decorate(in_a_thread)


@pytest.mark.parametrize("kind", ["transaction", "async", "thread"])
@pytest.mark.parametrize("raised", [asyncio.CancelledError, SystemExit, Odd])
async def test_what_a_handler_raises_that_is_no_error_is_put_aside_like_one(database, kind, raised):
    """A cancelled lane ends without a word, and the subscription stood still; an exit took the service along."""
    tried = []

    def do(number):
        tried.append(number)
        if number == 1:
            raise raised("enough")

    await database.write(events=[Event.of(Noted, Note(number=number), source="/app-svc") for number in (1, 2)])
    async with running(Subscriptions(database, [subscribed(kind, do)])):
        await wait_until(lambda: 2 in tried)
    (letter,) = await database.read(lambda connection: connection.execute(select(dead_letters)).all())
    assert (tried.count(1), letter.attempts) == (2, 2) or kind == "transaction"
    assert letter.error.startswith("HandlerBroke: ")


async def test_a_handler_that_is_stopped_with_its_service_has_not_failed(database):
    begun = asyncio.Event()

    @subscribe(Noted, durable="slow")
    async def slow(note: Note) -> None:
        begun.set()
        await asyncio.Event().wait()

    await database.write(events=[Event.of(Noted, Note(number=1), source="/app-svc")])
    task = asyncio.create_task(slow.handle([Event.of(Noted, Note(number=1), source="/app-svc")], None, attempt=1))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
