"""The live feed: one reader at the log's end for the whole process, any number of followers.

A follower reads old pages from the log by itself until it meets the reader, then shares the reader's pages.
One that falls too far behind goes back to reading by itself, and when even that cannot keep up it is told
to start afresh: memory stays bounded, and whoever keeps up misses nothing.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from lib_events.database import Database
from lib_events.event import Event
from lib_events.event_filter import Wanted, matches
from lib_events.event_log import PLACED_TOPIC, Cursor, Page, check_cursor, head
from lib_events.lifecycle import Loop
from lib_events.log.reader import read_page

POLL_SECONDS = 1.0
PAGE_ROWS = 500
QUEUE_LIMIT = 2_000  # entries a follower may have waiting …
QUEUE_BYTES = 16 * 1024 * 1024  # … and how much in them; the same stretch waits for all who have it
LAG_LIMIT = 20_000  # positions a follower that was live may fall behind
# Each follower costs a wake-up: the more there are, the longer the reader gathers events for all of them.
TICK_SECONDS_PER_FOLLOWER = 0.0001
LONGEST_TICK_SECONDS = 0.1

type Allowed = Callable[[Event], bool]  # followers with equal ones share their work: make it a frozen dataclass


class FeedLagged(Exception):
    """The follower fell too far behind; begin again after `cursor`, having read the present state anew."""

    def __init__(self, cursor: Cursor) -> None:
        super().__init__(f"too far behind the log; begin again after {cursor}")
        self.cursor = cursor


class FeedClosed(Exception):
    """The feed ends: the service is stopping."""


@dataclass(frozen=True)
class Entry:
    """One event at its place; its form on the wire is made once for all followers."""

    cursor: Cursor
    event: Event

    @cached_property
    def frame(self) -> bytes:
        """The event as a server-sent event; its JSON has no line breaks."""
        return b"id: %s\nevent: %s\ndata: %s\n\n" % (
            str(self.cursor).encode(),
            self.event.type.encode(),
            self.event.to_json(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What a follower wants to see, and may."""

    types: tuple[str, ...] = ()
    subject: str | None = None
    correlation: str | None = None
    allowed: Allowed | None = None

    @property
    def stored(self) -> Wanted:
        """What of it the log can be asked for."""
        return Wanted(types=self.types, subject=self.subject, correlation=self.correlation)

    def passes(self, event: Event) -> bool:
        """Whether `event` is to be delivered."""
        wanted = matches(event, self.types, self.subject, self.correlation)
        return wanted and (self.allowed is None or self.allowed(event))


@dataclass(frozen=True)
class Selection:
    """Events that pass one filter, and their form on the wire."""

    entries: Sequence[Entry]

    @cached_property
    def frames(self) -> bytes:
        """All of them as server-sent events."""
        return b"".join(entry.frame for entry in self.entries)


class Stretch:
    """A part of the log, read once; what passes a filter is selected once for all followers that have it."""

    def __init__(self, page: Page) -> None:
        epoch = page.head.epoch
        self.size = page.size
        self.end = Cursor(epoch, page.position)
        self._entries = [Entry(Cursor(epoch, placed.position), placed.event) for placed in page.events]
        self._selections: dict[Filter, Selection] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def select(self, wanted: Filter, after: Cursor) -> Selection:
        """Return what passes `wanted` and comes after a place, usually before the stretch."""
        if self._entries and self._entries[0].cursor <= after:
            return Selection([entry for entry in self._entries if entry.cursor > after and wanted.passes(entry.event)])
        found = self._selections.get(wanted)
        if found is None:
            found = Selection([entry for entry in self._entries if wanted.passes(entry.event)])
            self._selections[wanted] = found
        return found


class Feed(Loop):
    """Reads the end of the log once for everybody in this process; without followers it reads nothing."""

    def __init__(self, database: Database) -> None:
        super().__init__(name="feed")
        self.closed = False
        self._database = database
        self._end = 0  # the followers have been given everything up to this position
        self._followers: set[Follower] = set()

    async def run(self) -> None:
        """Read on whenever events were placed, and give them to the followers."""
        unsubscribe = self._database.on_notify(PLACED_TOPIC, self.wake)
        try:
            while True:
                if not (self._followers and await self._read_on()):
                    await self.pause(POLL_SECONDS)
                await asyncio.sleep(min(len(self._followers) * TICK_SECONDS_PER_FOLLOWER, LONGEST_TICK_SECONDS))
        finally:
            unsubscribe()

    async def resolve(self, cursor: str | None) -> Cursor:
        """Read a cursor's text (None: the end of the log); raises `CursorRejected`."""
        if cursor is None:
            return await self._database.read(head)
        parsed = Cursor.parse(cursor)
        await self._database.read(check_cursor, parsed)
        return parsed

    def follower(self, cursor: Cursor, wanted: Filter) -> "Follower":
        """Begin to follow after `cursor`; use it as a context manager."""
        return Follower(self, self._database, cursor, wanted)

    async def follow(
        self,
        cursor: Cursor | None = None,
        *,
        types: Sequence[str] = (),
        subject: str | None = None,
        correlation: str | None = None,
        allowed: Allowed | None = None,
    ) -> AsyncIterator[tuple[Cursor, Event]]:
        """Yield events after `cursor` (None: from now on) for ever; raises `FeedLagged` and `FeedClosed`."""
        wanted = Filter(types=tuple(types), subject=subject, correlation=correlation, allowed=allowed)
        with self.follower(cursor or await self.resolve(None), wanted) as follower:
            while True:
                for selection in await follower.take(POLL_SECONDS):
                    for entry in selection.entries:
                        yield entry.cursor, entry.event

    def close(self) -> None:
        """End every follower now: open streams would hold up the server's shutdown."""
        self.closed = True
        for follower in self._followers:
            follower.woken.set()

    def join(self, follower: "Follower") -> bool:
        """Take over `follower` at its place, unless the reader is ahead of it."""
        if not self._followers:
            self._end = follower.cursor.position
            self.wake()
        if follower.cursor.position < self._end:
            return False
        self._followers.add(follower)
        return True

    def leave(self, follower: "Follower") -> None:
        """Give `follower` nothing more."""
        self._followers.discard(follower)

    async def _read_on(self) -> bool:
        begin = self._end
        stretch = Stretch(await read_page(self._database, begin, Wanted(), limit=PAGE_ROWS))
        if begin != self._end:
            return True  # all have left meanwhile, and somebody has come who stands elsewhere
        self._end = stretch.end.position
        if stretch:
            for follower in tuple(self._followers):
                follower.give(stretch)
        return bool(stretch)


class Follower:
    """One reader of the feed, at its own place; a context manager."""

    def __init__(self, feed: Feed, database: Database, cursor: Cursor, wanted: Filter) -> None:
        self.cursor = cursor
        self.woken = asyncio.Event()
        self._feed = feed
        self._database = database
        self._wanted = wanted
        self._live = False
        self._fell_back = False
        self._stretches: deque[Stretch] = deque()
        self._waiting = 0  # entries in the stretches …
        self._waiting_bytes = 0  # … and their size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_details: object) -> None:
        self._feed.leave(self)

    def give(self, stretch: Stretch) -> None:
        """Queue what the feed has read; a full queue is dropped, for the log holds it all anyway."""
        self._stretches.append(stretch)
        self._waiting += len(stretch)
        self._waiting_bytes += stretch.size
        self.woken.set()
        if self._waiting > QUEUE_LIMIT or self._waiting_bytes > QUEUE_BYTES:
            self._feed.leave(self)
            self._live, self._fell_back = False, True
            self._stretches.clear()
            self._waiting = self._waiting_bytes = 0

    async def take(self, seconds: float) -> list[Selection]:
        """Return the next events, or none within `seconds`; raises `FeedLagged` and `FeedClosed`."""
        if self._feed.closed:
            raise FeedClosed
        if not self._live:
            return await self._read()
        if not self._stretches:
            self.woken.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.woken.wait()
        return self._drain()

    async def _read(self) -> list[Selection]:
        page = await read_page(self._database, self.cursor.position, self._wanted.stored, limit=PAGE_ROWS)
        is_gone = page.pruned > self.cursor.position  # what would follow is not kept any more
        if is_gone or (self._fell_back and page.head.position - self.cursor.position > LAG_LIMIT):
            self.cursor, self._fell_back = page.head, False
            raise FeedLagged(page.head)
        stretch = Stretch(page)
        after, self.cursor = self.cursor, stretch.end
        self._live = self._feed.join(self)
        self._fell_back = self._fell_back and not self._live
        selection = stretch.select(self._wanted, after)
        return [selection] if selection.entries else []

    def _drain(self) -> list[Selection]:
        found: list[Selection] = []
        while self._stretches:
            stretch = self._stretches.popleft()
            self._waiting -= len(stretch)
            self._waiting_bytes -= stretch.size
            found.append(stretch.select(self._wanted, self.cursor))
            self.cursor = max(self.cursor, stretch.end)
        return [selection for selection in found if selection.entries]
