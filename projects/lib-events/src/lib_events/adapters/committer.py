"""Group commit without a timer: commit as soon as none is in flight, so load makes its own batches.

The first of a group waits one turn of the loop, which costs it nothing where nobody else is: what has come while it was
decided is decided in that turn, and saved with it. A commit costs as much as many a request.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from lib_events.database import CommitFailed, CommitQueueFull, Connection
from lib_events.event import Recordable
from lib_events.statement import Fence, Write

GROUP_LIMIT = 2_000  # members of one group: bounds how long the loop is held
QUEUE_LIMIT = 100_000  # members waiting: past it the database is refusing to keep up
BASELESS = "what this was decided upon was not saved"


@dataclass(slots=True)
class Member:
    """One piece of work in a group: a transaction function, or rows and events."""

    future: asyncio.Future[Any]
    function: Callable[[Connection], Any] | None = None
    writes: Sequence[Write] = ()
    events: Sequence[Recordable] = ()
    fence: Fence | None = None
    topics: Sequence[str] = ()
    after: Sequence[asyncio.Future[Any]] = ()  # of members before it, which it was decided upon
    value: Any = None  # what the function gave
    error: BaseException | None = None  # why this member alone was refused


class GroupCommitter:
    """Queues members and hands them, a group at a time, to the adapter's `commit`."""

    def __init__(self, commit: Callable[[Sequence[Member]], Awaitable[None]]) -> None:
        self._commit = commit
        self._queue: list[Member] = []
        self._running: asyncio.Task[None] | None = None

    def submit(
        self,
        *,
        function: Callable[[Connection], Any] | None = None,
        writes: Sequence[Write] = (),
        events: Sequence[Recordable] = (),
        fence: Fence | None = None,
        topics: Sequence[str] = (),
        after: Sequence[asyncio.Future[Any]] = (),
    ) -> asyncio.Future[Any]:
        """Queue one member; its future resolves once its group is on disk. Raises `CommitQueueFull`."""
        if len(self._queue) >= QUEUE_LIMIT:
            raise CommitQueueFull(f"commit queue must stay under {QUEUE_LIMIT} members; try again shortly")
        loop = asyncio.get_running_loop()
        member = Member(loop.create_future(), function, writes, events, fence, topics, after)
        self._queue.append(member)
        if self._running is None:
            self._running = loop.create_task(self._drain(), name="group-committer")
        return member.future

    async def _drain(self) -> None:
        try:
            await asyncio.sleep(0)
            while self._queue:
                next_ones, self._queue = self._queue[:GROUP_LIMIT], self._queue[GROUP_LIMIT:]
                group = [member for member in next_ones if not refused_as_baseless(member)]
                try:
                    await self._commit(group)
                except Exception as error:  # noqa: BLE001 - whoever waits for the group must hear of it
                    fail(group, error)
                    self._lose_rows(error)
        finally:
            self._running = None

    def _lose_rows(self, error: Exception) -> None:
        """Rows are written from memory: those queued behind a lost group were decided upon what it held."""
        fail([member for member in self._queue if member.function is None], error)
        self._queue = [member for member in self._queue if member.function is not None]

    async def finish(self) -> None:
        """Wait until everything queued is on disk."""
        while self._running is not None:
            await asyncio.wait([self._running])


def refused_as_baseless(member: Member) -> bool:
    """Refuse a member that was decided upon something which was not saved; returns whether it was."""
    for before in member.after:
        if before.done() and (before.cancelled() or before.exception() is not None):
            fail([member], CommitFailed(BASELESS))
            return True
    return False


async def settled[R](saving: asyncio.Future[R]) -> R:
    """What a commit gives. Whoever waits may be cancelled, the commit is not: `asyncio.shield` for a plain future."""
    waiter: asyncio.Future[None] = saving.get_loop().create_future()
    saving.add_done_callback(partial(_wake, waiter))
    await waiter
    return saving.result()


def _wake(waiter: asyncio.Future[None], _: asyncio.Future[Any]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def resolve(member: Member) -> None:
    """Tell the member's waiter that it is on disk."""
    if not member.future.done():
        member.future.set_result(member.value)


def fail(members: Sequence[Member], error: BaseException) -> None:
    """Tell the members' waiters what went wrong."""
    for member in members:
        if not member.future.done():
            member.future.set_exception(error)
            member.future.exception()  # a waiter that left must not make the loop complain
