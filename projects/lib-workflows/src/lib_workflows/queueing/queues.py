"""Queues as an engine offers them: each command is one transaction, durable when it returns."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, case, func, select

from lib_events.clock import Clock, to_datetime
from lib_events.database import Connection, Database
from lib_workflows.authoring.queue import QueueLimits, known_queue_name
from lib_workflows.authoring.workflow import Registry
from lib_workflows.errors import QueueInvalid
from lib_workflows.paging import Page, cut, decode_cursor, encode_cursor
from lib_workflows.queueing import commands as queue_commands
from lib_workflows.queueing.slots import count_in
from lib_workflows.tables import queues, runs

PIECE = 2_000  # runs in one transaction
SLOW_SECONDS = 0.25  # counting that takes longer …
REST_FACTOR = 10  # … is not done again for so many times as long

type Counts = Mapping[str, Any]  # by queue


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueView:
    """A queue as it is read: its limits, and how many runs it holds."""

    name: str
    paused: bool
    note: str
    limits: QueueLimits
    declared: bool  # its limits are the code's
    workflows: tuple[str, ...]  # those whose runs go there unless they are started elsewhere
    queued: int  # runs that have not begun
    due: int  # those of them whose time has come
    due_since: datetime | None  # the one that has waited longest
    under_way: int


class Queues:
    """The queues on a database."""

    def __init__(
        self, database: Database, registry: Registry, *, clock: Clock, on_change: Callable[[], Awaitable[None]]
    ) -> None:
        self._database = database
        self._clock = clock
        self._on_change = on_change
        self._count = _Count(database, clock)
        self._workflows: dict[str, tuple[str, ...]] = {}
        for workflow in registry.newest():
            self._workflows[workflow.queue] = (*self._workflows.get(workflow.queue, ()), workflow.name)

    async def list(self, *, cursor: str | None = None, limit: int = 50) -> Page[QueueView]:
        """The queues that are known: from the workflows here, from unfinished runs, and those with limits; by name."""
        return await self._database.read(_list, self._workflows, await self._count.now(), cursor, limit)

    async def get(self, name: str) -> QueueView:
        """A queue; one that nobody has used has no limits and no runs."""
        known_queue_name(name)
        return (await self._database.read(_views, [name], self._workflows, await self._count.now()))[0]

    async def limit(self, name: str, limits: QueueLimits) -> QueueView:
        """Give a queue its limits, which count what is under way already; raises `QueueDeclared`, `QueueInvalid`."""
        known_queue_name(name)
        if not isinstance(limits, QueueLimits):
            raise QueueInvalid("limits", f"must be QueueLimits(…), got {limits!r:.100}")
        now = self._clock.micros()
        async with self.limiting([name]):
            await self._database.transact(queue_commands.limit, name, limits, now)
        return await self.get(name)

    async def pause(self, name: str, *, note: str = "") -> QueueView:
        """Let none of its runs begin until it is resumed; those under way go on."""
        await self._do(queue_commands.pause, name, self._clock.micros(), note)
        return await self.get(name)

    async def resume(self, name: str) -> QueueView:
        """Let its runs begin again."""
        await self._do(queue_commands.resume, name, self._clock.micros())
        return await self.get(name)

    @asynccontextmanager
    async def limiting(self, names: Collection[str]) -> AsyncIterator[None]:
        """Give these queues limits within: what is under way counts."""
        await self._count_in(names)
        yield
        await self._on_change()
        await self._count_in(names)  # what began before everybody here knew of the limit

    async def _count_in(self, names: Collection[str]) -> None:
        # In pieces: on SQLite one transaction must not hold the database for long, however many they are.
        for name in names:
            while await self._database.transact(count_in, name, PIECE) == PIECE:
                pass

    async def _do[*A](self, command: Callable[[Connection, *A], None], *args: *A) -> None:
        await self._database.transact(command, *args)
        await self._on_change()


class _Count:
    """How many runs each queue holds.

    Counting looks at every run that has not ended, and no index pays for it: with hundreds of thousands it takes
    seconds. Whoever asks meanwhile waits for the same answer, which is good for a while then.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._counting = asyncio.Lock()
        self._counted: Counts = {}
        self._good_until = 0.0

    async def now(self) -> Counts:
        """What each queue holds that has runs."""
        async with self._counting:
            began = time.monotonic()
            if began >= self._good_until:
                self._counted = await self._database.read(_counts, self._clock.micros())
                took = time.monotonic() - began
                self._good_until = began + took * (REST_FACTOR + 1) if took > SLOW_SECONDS else 0.0
            return self._counted


def _list(
    connection: Connection, known: Mapping[str, tuple[str, ...]], counted: Counts, cursor: str | None, limit: int
) -> Page[QueueView]:
    after = decode_cursor(cursor, str)
    names = sorted({*known, *counted, *connection.scalars(select(queues.c.name))})
    wanted, last = cut([name for name in names if after is None or name > after[0]][: limit + 1], limit)
    return Page(_views(connection, wanted, known, counted), None if last is None else encode_cursor(last))


def _views(
    connection: Connection, names: Iterable[str], known: Mapping[str, tuple[str, ...]], counted: Counts
) -> list[QueueView]:
    wanted = list(names)
    rows = {row.name: row for row in connection.execute(select(queues).where(queues.c.name.in_(wanted)))}
    return [_view(name, rows.get(name), counted.get(name), known.get(name, ())) for name in wanted]


def _counts(connection: Connection, now: int) -> Counts:
    is_queued = runs.c.status == "queued"
    is_due = and_(is_queued, runs.c.wake_at <= now)
    is_parked = runs.c.status == "nondeterministic"
    counts = select(
        runs.c.queue,
        func.count(case((is_queued, 1))).label("queued"),
        func.count(case((is_due, 1))).label("due"),
        func.min(case((is_due, runs.c.wake_at))).label("since"),
        func.count(case((and_(~is_queued, ~is_parked), 1))).label("under_way"),
    ).where(runs.c.ended_at.is_(None))
    return {row.queue: row for row in connection.execute(counts.group_by(runs.c.queue))}


def _view(name: str, row: Any, counted: Any, workflows: tuple[str, ...]) -> QueueView:
    return QueueView(
        name=name,
        paused=row is not None and row.paused,
        note=row.note if row is not None else "",
        limits=QueueLimits() if row is None else queue_commands.limits_of(row),
        declared=row is not None and row.declared,
        workflows=workflows,
        queued=counted.queued if counted else 0,
        due=counted.due if counted else 0,
        due_since=to_datetime(counted.since) if counted and counted.since is not None else None,
        under_way=counted.under_way if counted else 0,
    )
