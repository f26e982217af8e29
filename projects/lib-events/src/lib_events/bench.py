"""For tests of event handlers, in plain pytest: publish, let everything be handled, look at what came of it.

async def test_an_order_is_billed():
    async with bench([bill]) as found:
        await found.publish(OrderPlaced, Order(id="42", cents=995))
        await found.settle()
        assert await found.published(Billed) == [Bill(order="42", cents=995)]
        assert await found.dead_letters() == []

The database is a real SQLite file in a temporary folder, or any other that `url` names. Nobody waits: the pause before
a retry, and what `TryLater` and `NotNow` ask for, move the bench's clock on instead.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, insert, select

from lib_events.clock import MICROSECOND, SystemClock, to_datetime, to_micros
from lib_events.database import EVENTS_TOPIC, Connection, Database, Schema, open_database
from lib_events.event import Event, EventType
from lib_events.event_log import SCHEMA, head, imported_row, read_after
from lib_events.handling.subscriptions import Subscriptions
from lib_events.lifecycle import running
from lib_events.nats.relay import Relay
from lib_events.subscription import Subscription
from lib_events.tables import dead_letters, events

POLL_SECONDS = 0.002
SETTLE_SECONDS = 30.0
EVERYTHING = 1_000_000


class BenchClock:
    """A clock that stands still but for the pauses of those who would wait."""

    def __init__(self, start: datetime | None = None) -> None:
        self._micros = SystemClock().micros() if start is None else to_micros(start)

    def micros(self) -> int:
        """See `Clock.micros`."""
        return self._micros

    def advance(self, delta: timedelta) -> None:
        """Let time pass; a negative `delta` sets the clock back."""
        self._micros += delta // MICROSECOND

    async def sleep(self, seconds: float) -> None:
        """Let so much time pass at once."""
        self.advance(timedelta(seconds=seconds))
        await asyncio.sleep(0)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that a handler failed on."""

    durable: str
    event: Event
    error: str
    attempts: int


class Bench:
    """Subscriptions that run on a database of their own; `bench` makes it."""

    def __init__(self, database: Database, subscriptions: Subscriptions, clock: BenchClock) -> None:
        self.database = database
        self.clock = clock
        self._subscriptions = subscriptions

    async def publish[T](
        self, event_type: EventType[T], payload: T, *, subject: str | None = None, source: str | None = None
    ) -> Event:
        """Publish an event at the bench's time; with `source`, as if another service had published it."""
        event = Event.of(
            event_type,
            payload,
            source=source or self.database.source,
            subject=subject,
            time=to_datetime(self.clock.micros()),
        )
        if source is None:
            await self.database.write(events=[event])
        else:
            await self.database.transact(_import, event)
        return event

    async def settle(self) -> None:
        """Wait, in real time, until every event is handled or put aside, and what handlers publish is too."""
        async with asyncio.timeout(SETTLE_SECONDS):
            while not await self._is_settled():  # noqa: ASYNC110 - settled is many things at once
                await asyncio.sleep(POLL_SECONDS)

    async def published[T](self, event_type: EventType[T]) -> list[T]:
        """The payloads of all events of a type, in order."""
        return [event.payload(event_type) for event in await self.events(event_type.name)]

    async def events(self, *types: str) -> list[Event]:
        """All events of some types (names, or patterns such as `shop.*`; default: of every type), in order."""
        page = await self.database.read(lambda connection: read_after(connection, 0, types=types, limit=EVERYTHING))
        return [placed.event for placed in page.events]

    async def dead_letters(self) -> list[DeadLetter]:
        """What was put aside, in order."""
        rows = await self.database.read(_dead_letters)
        return [DeadLetter(row.durable, Event.from_json(row.body), row.error, row.attempts) for row in rows]

    async def _is_settled(self) -> bool:
        positions = tuple(self._subscriptions.positions.values())  # first: handling an event may publish another one
        end = await self.database.read(_end)
        return end is not None and all(position >= end for position in positions)


@asynccontextmanager
async def bench(
    subscriptions: Sequence[Subscription],
    *,
    url: str | None = None,
    service: str = "bench",
    schemas: Sequence[Schema] = (),
    clock: BenchClock | None = None,
) -> AsyncIterator[Bench]:
    """Run `subscriptions` on an empty database with the tables of `schemas`, until the block ends."""
    clock = clock or BenchClock()
    with tempfile.TemporaryDirectory(prefix="evs-bench-") as folder:
        database = await open_database(
            url or f"sqlite:///{folder}/bench.db", service=service, schemas=[SCHEMA, *schemas]
        )
        try:
            running_ones = Subscriptions(database, subscriptions, clock=clock, sleep=clock.sleep)
            async with running(Relay(database, None), running_ones):
                yield Bench(database, running_ones, clock)
        finally:
            await database.close()


def _import(connection: Connection, event: Event) -> None:
    connection.execute(insert(events), imported_row(event))
    connection.notify(EVENTS_TOPIC)


def _end(connection: Connection) -> int | None:
    """The position of the last event, or None while one has no position yet or is to be handled again."""
    unplaced = select(events.c.sequence).where(events.c.last_position.is_(None)).limit(1)
    wanted_again = select(dead_letters.c.id).where(dead_letters.c.redriven_at.is_not(None)).limit(1)
    is_open = any(connection.scalar(query) is not None for query in (unplaced, wanted_again))
    return None if is_open else head(connection).position


def _dead_letters(connection: Connection) -> Sequence[Row[Any]]:
    return connection.execute(select(dead_letters).order_by(dead_letters.c.id)).all()
