"""The connections that transactions borrow: each keeps its SQLAlchemy connection for life.

SQLAlchemy's own pool wraps, checks and resets a connection each time it is lent, which costs more than a short
transaction. Ours are always given back between two transactions, so there is nothing to reset.

Most transactions are over sooner than a connection is made, so whoever finds all lent waits a moment for one that is
given back. One more is made once those who wait have waited, all together, for as long as a few cost: the pool grows at
once where much is asked of it, and not by the loops of a process that all begin at the same time.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from lib_events.adapters.postgresql_errors import LOST
from lib_events.database import DatabaseUnavailable

WAIT_SECONDS = 30.0
WORTH = 4  # so many times as long as one takes to make …
MAKING_LIMIT_SECONDS = 0.05  # … on a quiet server: after an outage nobody waits for as long as that made one take
LATELY_SECONDS = 1.0  # who waited before that is forgotten


@dataclass(frozen=True, slots=True)
class Borrowed:
    """One connection, as SQLAlchemy and as the driver know it."""

    core: AsyncConnection
    raw: asyncpg.Connection


class Pool:
    """Lends up to `limit` connections, the one that was given back last first."""

    def __init__(self, engine: AsyncEngine, *, limit: int) -> None:
        self._engine = engine
        self._turns = asyncio.Semaphore(limit)
        self._lent = 0
        self._idle: list[Borrowed] = []
        self._waiting: deque[asyncio.Future[Borrowed | None]] = deque()  # for one that is given back
        self._making_seconds = 0.0  # the last one took
        self._waited_seconds = 0.0  # all who waited, since then
        self._waited_at = 0.0

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[Borrowed]:
        """Lend a connection; one that a cancellation or an error left in a bad state is dropped.

        Raises `DatabaseUnavailable`.
        """
        await self._wait_for_turn()
        self._lent += 1
        try:
            borrowed = await self._take()
            try:
                yield borrowed
            except BaseException as error:
                await self._take_back(borrowed, doubtful=isinstance(error, asyncio.CancelledError))
                task = asyncio.current_task()
                if task is not None and task.cancelling():  # ending the transaction may have hidden it
                    raise asyncio.CancelledError from error
                raise
            else:
                self._give_back(borrowed)
        finally:
            self._lent -= 1
            self._turns.release()

    async def close(self) -> None:
        """Close those that are here."""
        while self._idle:
            await self._idle.pop().core.close()
        await self._engine.dispose()

    async def _wait_for_turn(self) -> None:
        if not self._turns.locked():
            await self._turns.acquire()
            return
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._turns.acquire()
        except TimeoutError as error:
            text = f"all connections to PostgreSQL were in use for {WAIT_SECONDS:g} s; try again"
            raise DatabaseUnavailable(text) from error

    async def _take(self) -> Borrowed:
        while borrowed := self._idle.pop() if self._idle else await self._given_back():
            if not borrowed.raw.is_closed():
                return borrowed
            await _drop(borrowed.core)
        return await self._make()

    async def _given_back(self) -> Borrowed | None:
        """Wait a moment for one that somebody else gives back."""
        if self._lent == 1:
            return None
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[Borrowed | None] = loop.create_future()
        self._waiting.append(waiting)
        timer = loop.call_later(self._patience(began := loop.time()), _end, waiting)
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled() and (borrowed := waiting.result()):
                self._give_back(borrowed)
            raise
        finally:
            timer.cancel()
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            self._waited_at = loop.time()
            self._waited_seconds += self._waited_at - began

    def _patience(self, now: float) -> float:
        """For how long whoever has just come waits beside the others."""
        if now - self._waited_at > LATELY_SECONDS:
            self._waited_seconds = 0.0
        return max(0.0, WORTH * self._making_seconds - self._waited_seconds) / len(self._waiting)

    def _give_back(self, borrowed: Borrowed) -> None:
        """To whoever has waited longest, whom nobody who comes now overtakes."""
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(borrowed)
                return
        self._idle.append(borrowed)

    async def _make(self) -> Borrowed:
        self._waited_seconds, began = 0.0, time.monotonic()
        core: AsyncConnection | None = None
        try:
            core = await self._engine.connect()
            made = Borrowed(core, (await core.get_raw_connection()).driver_connection)
        except (*LOST, DBAPIError) as error:
            if core is not None:
                await _drop(core)
            raise DatabaseUnavailable(f"PostgreSQL cannot be reached: {error}; try again") from error
        self._making_seconds = min(time.monotonic() - began, MAKING_LIMIT_SECONDS)
        return made

    async def _take_back(self, borrowed: Borrowed, *, doubtful: bool) -> None:
        raw = borrowed.raw
        if doubtful or raw.is_closed() or raw.is_in_transaction():
            await _drop(borrowed.core)
        else:
            self._give_back(borrowed)


def _end(waiting: asyncio.Future[Borrowed | None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


async def _drop(core: AsyncConnection) -> None:
    await core.invalidate()
    await core.close()
