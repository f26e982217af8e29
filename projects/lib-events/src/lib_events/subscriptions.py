"""Durable subscriptions: each event of the log is handled once, in the transaction that moves the cursor on."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from lib_events.clock import SystemClock
from lib_events.database import Connection, Database, DatabaseError, TransactionTooLong
from lib_events.dead_letters import bury
from lib_events.event import Event, EventType, current_cause
from lib_events.event_log import PLACED_TOPIC, Page, Placed, head, read_after
from lib_events.lifecycle import Loop, running
from lib_events.tables import subscription_cursors

logger = logging.getLogger(__name__)

type Handler = Callable[[Connection, Event], None]

POLL_SECONDS = 1.0
PAGE_ROWS = 200
SKIP_LIMIT = 1_000  # positions without an event for us, after which the cursor is written down anyway
ATTEMPTS = 5
FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Subscription:
    """A transaction function `handler(connection, event)` for the events of some types, under a durable name."""

    handler: Handler
    types: tuple[str, ...]
    durable: str
    attempts: int
    only_new: bool

    def __call__(self, connection: Connection, event: Event) -> None:
        """Handle one event, as its cause."""
        before = current_cause.set(event.cause)
        try:
            self.handler(connection, event)
        finally:
            current_cause.reset(before)


def subscribe(
    *types: EventType[Any] | str, durable: str, attempts: int = ATTEMPTS, only_new: bool = False
) -> Callable[[Handler], Subscription]:
    """Make a handler a subscription to `types` (event types, names, or patterns ending in `.*`).

    `durable` names its cursor and must stay the same over releases. `only_new` begins at the log's end
    instead of its beginning, the first time. After `attempts` failures an event becomes a dead letter.
    """
    names = tuple(kind if isinstance(kind, str) else kind.name for kind in types)
    if not names:
        raise ValueError(f"subscription {durable!r} must name an event type, got none; '*' takes all")
    return lambda handler: Subscription(handler, names, durable, attempts, only_new)


class Subscriptions(Loop):
    """Runs subscriptions; any number of processes may do so on one database."""

    def __init__(self, database: Database, subscriptions: Sequence[Subscription]) -> None:
        super().__init__(name="subscriptions")
        durables = [subscription.durable for subscription in subscriptions]
        if len(set(durables)) != len(durables):
            raise ValueError(f"durable names must differ, got {sorted(durables)}")
        self._followers = [_Follower(database, subscription) for subscription in subscriptions]

    async def run(self) -> None:
        """Run every subscription side by side: a slow one holds up no other."""
        async with running(*self._followers):
            while True:
                await self.pause(3600)


class _CursorMoved(Exception):
    """Another process has handled these events meanwhile."""


class _Follower(Loop):
    """Runs one subscription."""

    def __init__(self, database: Database, subscription: Subscription) -> None:
        super().__init__(name=f"subscription {subscription.durable}")
        self._database = database
        self._subscription = subscription
        self._failing: int | None = None  # index of the event whose handler runs
        self._failures: tuple[int, int] = (0, 0)  # a position, and how often its event has failed

    async def run(self) -> None:
        unsubscribe = self._database.on_notify(PLACED_TOPIC, self.wake)
        try:
            cursor = reached = await self._database.transact(self._begin)
            while True:
                page = await self._database.read(self._read, reached)
                if page.events or page.position - cursor >= SKIP_LIMIT:
                    cursor = reached = await self._handle(page.events, page.position, cursor)
                elif page.position > reached:
                    reached = page.position
                else:
                    await self.pause(POLL_SECONDS)
        finally:
            unsubscribe()

    async def _handle(self, placed: Sequence[Placed], position: int, cursor: int) -> int:
        """Handle events in one transaction and return the new cursor."""
        try:
            await self._database.transact(self._handle_all, placed, position, cursor)
        except _CursorMoved:
            return await self._database.transact(self._begin)
        except Exception as error:
            if _is_the_databases(error):
                raise
            return await self._handle_less(placed, cursor, error)
        return position

    async def _handle_less(self, placed: Sequence[Placed], cursor: int, error: Exception) -> int:
        """Handle those before the failing event; when it is the first, try it again or give it up."""
        # All handlers were done and their rows were refused: whose they are, halving will show.
        index = len(placed) // 2 if self._failing is None else self._failing
        if index > 0:
            return await self._handle(placed[:index], placed[index - 1].position, cursor)
        first = placed[0]
        failures = self._failures[1] + 1 if self._failures[0] == first.position else 1
        self._failures = (first.position, failures)
        if failures >= self._subscription.attempts:
            logger.error("%s gives up event %s: %s", self.name, first.event.id, error, exc_info=error)
            await self._database.transact(self._give_up, first, cursor, error)
            return first.position
        delay = min(FIRST_RETRY_SECONDS * 2 ** (failures - 1), LAST_RETRY_SECONDS)
        logger.warning("%s failed on event %s, again in %.1f s: %s", self.name, first.event.id, delay, error)
        await asyncio.sleep(delay)
        return cursor

    def _begin(self, connection: Connection) -> int:
        """Return the cursor, making it the first time."""
        start = head(connection).position if self._subscription.only_new else 0
        row = {"durable": self._subscription.durable, "position": start, "updated_at": SystemClock().micros()}
        insert = sqlite.insert if connection.dialect_name == "sqlite" else postgresql.insert
        connection.execute(insert(subscription_cursors).values(row).on_conflict_do_nothing())
        mine = subscription_cursors.c.durable == self._subscription.durable
        position: int = connection.scalar(select(subscription_cursors.c.position).where(mine))
        return position

    def _read(self, connection: Connection, position: int) -> Page:
        return read_after(connection, position, types=self._subscription.types, limit=PAGE_ROWS)

    def _handle_all(self, connection: Connection, placed: Sequence[Placed], position: int, cursor: int) -> None:
        self._failing = None
        self._move(connection, cursor, position)  # first: its row lock keeps other processes out
        for index, one in enumerate(placed):
            self._failing = index
            self._subscription(connection, one.event)
        self._failing = None

    def _give_up(self, connection: Connection, placed: Placed, cursor: int, error: Exception) -> None:
        self._move(connection, cursor, placed.position)
        durable, attempts = self._subscription.durable, self._subscription.attempts
        bury(connection, durable, placed.position, placed.event.id, error, attempts=attempts)

    def _move(self, connection: Connection, cursor: int, position: int) -> None:
        mine = subscription_cursors.c.durable == self._subscription.durable
        query = update(subscription_cursors).where(mine, subscription_cursors.c.position == cursor)
        moved = connection.execute(query.values(position=position, updated_at=SystemClock().micros()))
        if moved.rowcount != 1:
            raise _CursorMoved


def _is_the_databases(error: Exception) -> bool:
    """Whether the database failed, not the handler: that counts for no event."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated
    return isinstance(error, DatabaseError) and not isinstance(error, TransactionTooLong)
