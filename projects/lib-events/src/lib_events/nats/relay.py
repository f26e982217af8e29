"""From commit to everybody else: the relay places events in one order and publishes our own to NATS.

Events are inserted without a position, because on PostgreSQL a transaction that began earlier may commit
later. The *placer* gives dense positions to what is committed, in insertion order; the feed, the
subscriptions and the publisher read placed events only, so none of them can miss one. The *publisher*
sends our own events to our stream, each message naming the id of the one before it, so the stream cannot
hold a gap or another order: what it ends with says where to go on, also after its store was lost.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic_core import to_json
from sqlalchemy import select, update

from lib_events.clock import SystemClock
from lib_events.database import EVENTS_TOPIC, REWRITTEN_TOPIC, Connection, Database
from lib_events.event import TYPE_PATTERN, Event, decode
from lib_events.event_filter import Wanted
from lib_events.event_log import PLACE_LIMIT, PLACED_TOPIC, Cursor, CursorRejected, StoredRow, place, read_after
from lib_events.lifecycle import Loop, for_ever, running
from lib_events.log.reader import read_rows
from lib_events.nats.broker import BROKER_ERRORS, Broker, Message, StreamState
from lib_events.nats.permissions import subject_prefix
from lib_events.tables import SEGMENT_TYPE, event_log_state

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
BATCH_ROWS = 1_000
BATCH_BYTES = 1024 * 1024
BATCHES_UNDER_WAY = 4  # published, and not acknowledged yet
QUIET_SECONDS = 0.05  # so long nothing came: there is time to note how far it is acknowledged
RECORD_SECONDS = 0.5  # between two such notes otherwise: the stream itself knows better
HEADERS_BYTES = 1024  # of a message's payload limit, kept for its headers
FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 1.0
SECOND = 1_000_000  # microseconds
OWN = Wanted(own_only=True)


@dataclass(frozen=True, slots=True)
class Batch:
    """Own events to publish: the rows after `after`, up to `end`."""

    epoch: int
    after: int
    end: int
    rows: Sequence[StoredRow]


class Relay(Loop):
    """Places and publishes while this process leads; of all processes on one database one does."""

    def __init__(self, database: Database, broker: Broker | None) -> None:
        super().__init__(name="relay")
        self._database = database
        self._broker = broker

    async def run(self) -> None:
        """Wait to lead, then relay until the lead is lost."""
        loops: list[Loop] = [_Placer(self._database)]
        if self._broker is not None:
            loops.append(_Publisher(self._database, self._broker))
        async with self._database.leading("relay"), running(*loops):
            await for_ever()


class _Placer(Loop):
    """Gives positions; woken by every commit that published, unless the commit itself has placed them (SQLite)."""

    def __init__(self, database: Database) -> None:
        super().__init__(name="relay placer")
        self._database = database

    async def run(self) -> None:
        with ExitStack() as stack:
            if not self._database.places_in_commit:
                stack.callback(self._database.on_notify(EVENTS_TOPIC, self.wake))
            while True:
                if await self._database.transact(place) < PLACE_LIMIT:
                    await self.pause(POLL_SECONDS)


class _Progress:
    """The batches that are published and not acknowledged yet, oldest first, and what is written down of the others."""

    def __init__(self, position: int, *, wake: Callable[[], None]) -> None:
        self.acknowledged = position
        self._wake = wake
        self._recorded = position
        self._recorded_at = time.monotonic()
        self._published = False  # something since it was written down
        self._under_way: deque[tuple[int, asyncio.Task[None] | None]] = deque()

    def add(self, end: int, publishing: "asyncio.Task[None] | None") -> None:
        """A batch that ends there is being published; None: there is nothing in it to publish."""
        self._under_way.append((end, publishing))
        if publishing is not None:
            publishing.add_done_callback(lambda _task: self._wake())

    def take_acknowledged(self) -> None:
        """Go on to where everything is acknowledged; raises what kept a batch from it."""
        while self._under_way:
            end, publishing = self._under_way[0]
            if publishing is not None:
                if not publishing.done():
                    return
                publishing.result()
                self._published = True
            self.acknowledged = end
            self._under_way.popleft()

    @property
    def has_room(self) -> bool:
        """Whether another batch may be published before the first one is acknowledged."""
        return len(self._under_way) < BATCHES_UNDER_WAY

    @property
    def patience_seconds(self) -> float:
        """How long to wait for more: only a moment while there is something to write down."""
        return QUIET_SECONDS if self._published and not self._under_way else POLL_SECONDS

    def is_to_record(self, *, quiet: bool) -> bool:
        """Whether to write down what is acknowledged: after publishing when there is time, else now and then."""
        late = time.monotonic() - self._recorded_at > RECORD_SECONDS
        return self.acknowledged != self._recorded and (late or (quiet and self._published))

    def recorded(self) -> None:
        """What is acknowledged is written down."""
        self._recorded, self._recorded_at = self.acknowledged, time.monotonic()
        self._published = False

    async def give_up(self) -> None:
        """Wait for no acknowledgement any more."""
        tasks = [publishing for _, publishing in self._under_way if publishing is not None]
        for publishing in tasks:
            publishing.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Publisher(Loop):
    """Publishes our own events in order, batch by batch."""

    def __init__(self, database: Database, broker: Broker) -> None:
        super().__init__(name="relay publisher")
        self._database = database
        self._broker = broker

    async def run(self) -> None:
        unsubscribe = self._database.on_notify(PLACED_TOPIC, self.wake)
        delay = FIRST_RETRY_SECONDS
        try:
            while True:
                await self._broker.wait_connected()
                try:
                    await self._publish_while_connected()
                    delay = FIRST_RETRY_SECONDS
                except BROKER_ERRORS as error:
                    logger.warning("publishing stopped, again in %.1f s: %s", delay, error)
                    await self.pause(delay)
                    delay = min(delay * 2, LAST_RETRY_SECONDS)
        finally:
            unsubscribe()

    async def _publish_while_connected(self) -> None:
        connection = self._broker.connections
        await self._broker.ensure_stream()
        state = await self._broker.stream_state()
        again_until = (await self._database.read(_state)).published_position
        after = await self._database.transact(align, state)
        progress, previous_id, quiet = _Progress(after, wake=self.wake), state.last_message_id, False
        try:
            while self._broker.connections == connection:
                progress.take_acknowledged()
                if progress.is_to_record(quiet=quiet):
                    await self._database.transact(record, progress.acknowledged)
                    progress.recorded()
                batch = await next_batch(self._database, after) if progress.has_room else None
                if batch is None or batch.end == after:
                    quiet = not await self.pause(progress.patience_seconds)
                    continue
                messages = self._messages(batch, previous_id, again_until=again_until)
                # In a chain the next batch need not wait for the last: the stream refuses it if that was lost.
                publishing = asyncio.create_task(self._broker.publish_batch(messages)) if messages else None
                progress.add(batch.end, publishing)
                previous_id = messages[-1].id if messages else previous_id
                after, quiet = batch.end, False
        finally:
            await progress.give_up()

    def _messages(self, batch: Batch, previous_id: str | None, *, again_until: int) -> list[Message]:
        limit = self._broker.max_payload - HEADERS_BYTES
        oldest = SystemClock().micros() - round(self._broker.max_age_seconds * SECOND)
        messages: list[Message] = []
        for row in batch.rows:
            if row.last_position <= again_until and row.time < oldest:
                continue  # its stream would hold it no more, and who has imported it may not know it any more
            way = _way(self._broker.service, row.type)
            for position, body in _bodies(row, batch.after, limit):
                message_id = f"{batch.epoch}.{position}"
                if way is None or len(body) > limit:
                    logger.error(
                        "event %s (%s, %d bytes) cannot go to NATS, which takes %d bytes and types like a.b: "
                        "other services will not see it",
                        *(message_id, row.type, len(body), limit),
                    )
                    continue
                subject, content_type = way
                messages.append(Message(subject, message_id, body, content_type, previous_id))
                previous_id = message_id
        return messages


def align(connection: Connection, stream: StreamState) -> int:
    """Record and return where to publish from, by what our stream ends with."""
    state = connection.execute(select(event_log_state).with_for_update()).one()
    last = _read_id(stream.last_message_id)
    values: dict[str, Any] = {"published_position": state.published_position}
    if stream.last_sequence == 0:
        values["published_position"] = 0  # new, or its store was wiped: everything again
    elif last is not None and last.epoch <= state.epoch and _has_given(connection, last.position, stream.last_body):
        values["published_position"] = last.position
    elif last is not None and last.epoch >= state.epoch:
        # The stream knows positions this database never gave: it was restored, so old cursors must end.
        values["epoch"] = last.epoch + 1
        connection.notify(REWRITTEN_TOPIC)
        logger.error("the database is older than its stream (%s): new epoch %d", last, values["epoch"])
    elif last is not None:
        # It ends before our epoch: whatever it had of that is lost, and nobody knows where that began.
        values["published_position"] = 0
    position: int = values["published_position"]
    if position < state.published_position:
        logger.warning("publishing again from position %d", position)
    connection.execute(update(event_log_state).values(values))
    return position


def _state(connection: Connection) -> Any:
    return connection.execute(select(event_log_state)).one()


def _has_given(connection: Connection, position: int, body: bytes | None) -> bool:
    """Whether the log has at a position what the stream has: a restored one may have come that far again since."""
    state = _state(connection)
    placed: int = state.placed_position
    if body is None or not state.pruned_position < position <= placed:
        return position <= placed
    published = decode(body)
    said = Event.from_dict(published[-1] if isinstance(published, list) else published)
    here = read_after(connection, position - 1, limit=1).events
    return bool(here) and (here[0].position, here[0].event) == (position, said)


async def next_batch(database: Database, after: int) -> Batch:
    """Return what to publish after that position; without own events it steps over the imported ones.

    Nothing need be written down before: a message's id and body follow from its row, so whoever tries again
    sends the same ones, and what the stream ends with says where.
    """
    rows = await read_rows(database, after, OWN, limit=BATCH_ROWS, bytes_limit=BATCH_BYTES)
    return Batch(rows.head.epoch, after, rows.position, rows.found)


def record(connection: Connection, position: int) -> None:
    """Write down that everything up to `position` was acknowledged."""
    connection.execute(update(event_log_state).values(published_position=position))


def _bodies(row: StoredRow, after: int, limit: int) -> list[tuple[int, bytes]]:
    """The bodies to publish for one row, each with its last position: a segment may be cut."""
    first = row.last_position - row.size + 1
    if row.type != SEGMENT_TYPE or (first > after and len(row.body) <= limit):
        return [(row.last_position, row.body)]
    parts: list[tuple[int, list[bytes]]] = []
    space = 0
    for position, event in enumerate(map(to_json, decode(row.body)), start=first):
        if position <= after:
            continue
        space -= len(event) + 1
        if space < 0 or not parts:
            space = limit - 2 - len(event)
            parts.append((position, []))
        parts[-1][1].append(event)
        parts[-1] = (position, parts[-1][1])
    return [(position, b"[" + b",".join(found) + b"]") for position, found in parts]


@lru_cache(maxsize=4_096)
def _way(service: str, event_type: str) -> tuple[str, str] | None:
    """The subject and the content type of a type's messages; None: it can have no subject."""
    if not TYPE_PATTERN.fullmatch(event_type):
        return None
    # CloudEvents NATS binding 1.0, structured mode; a segment is a JSON batch.
    content_type = (
        "application/cloudevents-batch+json" if event_type == SEGMENT_TYPE else "application/cloudevents+json"
    )
    return f"{subject_prefix(service)}.{event_type}", content_type


def _read_id(message_id: str | None) -> Cursor | None:
    try:
        return Cursor.parse(message_id) if message_id else None
    except CursorRejected:
        return None
