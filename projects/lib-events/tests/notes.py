"""Events for tests of handlers, and what they have written down."""

from contextlib import asynccontextmanager

from pydantic import BaseModel
from sqlalchemy import select, text

from lib_events.database import open_database
from lib_events.event import Event, EventType
from lib_events.event_log import SCHEMA
from lib_events.lifecycle import running
from lib_events.nats.relay import Relay
from lib_events.tables import dead_letters, subscription_cursors
from lib_events.testing import wait_until


class Note(BaseModel):
    number: int


Noted = EventType("test.noted", Note)


@asynccontextmanager
async def open_notebook(url):
    """A database where handlers write down numbers, and whose events are relayed."""
    opened = await open_database(url, service="app-svc", schemas=[SCHEMA])
    await opened.transact(lambda connection: connection.execute(text("CREATE TABLE done (number INTEGER)")))
    async with running(Relay(opened, None)):
        yield opened
    await opened.close()


def noted(number, subject=None):
    return Event.of(Noted, Note(number=number), source="/app-svc", subject=subject)


async def publish(database, numbers):
    await database.write(events=[noted(number) for number in numbers])


async def letters(database):
    return await database.read(lambda c: c.execute(select(dead_letters).order_by(dead_letters.c.position)).all())


async def place(database):
    return await database.read(lambda connection: connection.scalar(select(subscription_cursors.c.position)))


async def until_placed(database, position):
    async def there():
        # What is put aside is told of in the log, too: the place may have passed that already.
        return (await place(database) or 0) >= position

    await wait_until(there)


def write_down(connection, number):
    connection.execute(text("INSERT INTO done VALUES (:number)"), {"number": number})


async def done(database):
    return await database.read(lambda c: list(c.scalars(text("SELECT number FROM done ORDER BY number"))))
