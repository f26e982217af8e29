"""A service to be killed: `service_process.py publish|consume DATABASE_URL NATS_URL SEED_FILE`, until it is."""

import asyncio
import sys
from pathlib import Path

from pydantic import BaseModel
from sqlalchemy import func, select

from lib_events.database import open_database
from lib_events.event import Event, EventRegistry, EventType
from lib_events.event_log import SCHEMA
from lib_events.handling.subscriptions import Subscriptions
from lib_events.lifecycle import running
from lib_events.nats.broker import Broker
from lib_events.nats.importer import Importer
from lib_events.nats.relay import Relay
from lib_events.subscription import subscribe
from lib_events.tables import events


class Note(BaseModel):
    number: int


Noted = EventType("test.noted", Note)
Handled = EventType("test.handled", Note)
SUBJECTS = 5


@subscribe(Noted, durable="handle")
def handle(connection, event):
    """The effect of an event: another one, in the transaction that moves the cursor."""
    connection.publish(Event.of(Handled, Note(number=event.data["number"]), source=connection.source))


def written(connection):
    return connection.scalar(select(func.count()).select_from(events))


async def publish(database, broker):
    """Write numbered events for ever, going on where the last life ended."""
    number = await database.read(written)
    async with running(Relay(database, broker)):
        while True:
            notes = [Note(number=number + index) for index in range(10)]
            await database.write(
                events=[Event.of(Noted, note, source="/app-svc", subject=str(note.number % SUBJECTS)) for note in notes]
            )
            number += len(notes)
            await asyncio.sleep(0.01)  # faster than this they only pile up, and take long to be handled in the end


async def consume(database, broker):
    """Import and handle for ever."""
    importer = Importer(
        database, broker, sources=["app-svc"], types=["test.noted"], registry=EventRegistry(Noted, Handled)
    )
    async with running(importer, Relay(database, None), Subscriptions(database, [handle])):
        await asyncio.Event().wait()


async def main(role, database_url, nats_url, seed_file):
    work, service = {"publish": (publish, "app-svc"), "consume": (consume, "auth-svc")}[role]
    database = await open_database(database_url, service=service, schemas=[SCHEMA])
    async with Broker(nats_url, service=service, seed_file=Path(seed_file)) as broker:
        await work(database, broker)


def serve():
    """Be one, as the arguments say."""
    asyncio.run(main(*sys.argv[1:]))
