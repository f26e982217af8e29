"""The connections that transactions borrow: each keeps its SQLAlchemy connection for life.

SQLAlchemy's own pool wraps, checks and resets a connection each time it is lent, which costs more than a short
transaction. Ours are always given back between two transactions, so there is nothing to reset.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from lib_events.adapters.postgresql_backends import Backend, LostBackends
from lib_events.adapters.postgresql_errors import DRIVER_ERRORS
from lib_events.database import DatabaseUnavailable

WAIT_SECONDS = 30.0
UNUSED_SECONDS = 10.0  # of those that nobody has wanted for so long, one is closed


@dataclass(frozen=True, slots=True)
class Borrowed:
    """One connection, as SQLAlchemy and as the driver know it."""

    core: AsyncConnection
    raw: asyncpg.Connection
    backend: Backend


class Pool:
    """Lends up to `limit` connections, the one that was given back last first.

    What a burst has made is closed again, one by one: the server has room for so many, and others may want it.
    """

    def __init__(self, engine: AsyncEngine, lost: LostBackends, *, limit: int) -> None:
        self._engine = engine
        self._lost = lost
        self._turns = asyncio.Semaphore(limit)
        self._idle: list[Borrowed] = []
        self._spare = 0  # so many have been idle at any moment since …
        self._spare_since = 0.0

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[Borrowed]:
        """Lend a connection; one that a cancellation or an error left in a bad state is dropped.

        Raises `DatabaseUnavailable`.
        """
        await self._wait_for_turn()
        try:
            await self._close_unused()
            borrowed = await self._take()
            self._spare = min(self._spare, len(self._idle))
            try:
                yield borrowed
            except BaseException as error:
                await self._take_back(borrowed, doubtful=isinstance(error, asyncio.CancelledError))
                task = asyncio.current_task()
                if task is not None and task.cancelling():  # ending the transaction may have hidden it
                    raise asyncio.CancelledError from error
                raise
            else:
                self._idle.append(borrowed)
        finally:
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

    async def _close_unused(self) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._spare_since + UNUSED_SECONDS:
            return
        unused = self._idle.pop(0) if self._spare and self._idle else None  # the one that was given back first
        self._spare, self._spare_since = len(self._idle), now
        if unused is not None:
            await _drop(unused.core)

    async def _take(self) -> Borrowed:
        """Raises `DatabaseUnavailable`, also while the backend of a lost connection is still at work."""
        core: AsyncConnection | None = None
        try:
            borrowed = await self._take_idle()
            if borrowed is None:
                core = await self._engine.connect()
                raw = (await core.get_raw_connection()).driver_connection
                borrowed = Borrowed(core, raw, await Backend.of(raw))
            core = borrowed.core
            await self._lost.end(borrowed.raw)
        except BaseException as error:
            if core is not None:
                await _drop(core)
            if not isinstance(error, (*DRIVER_ERRORS, DBAPIError)):
                raise
            raise DatabaseUnavailable(f"PostgreSQL cannot be reached: {error}; try again") from error
        return borrowed

    async def _take_idle(self) -> Borrowed | None:
        while self._idle:
            borrowed = self._idle.pop()
            if not borrowed.raw.is_closed():
                return borrowed
            self._lost.add(borrowed.backend)  # it does nothing, and takes up one of the server's connections
            await _drop(borrowed.core)
        return None

    async def _take_back(self, borrowed: Borrowed, *, doubtful: bool) -> None:
        raw = borrowed.raw
        if raw.is_closed():
            self._lost.add(borrowed.backend)
        if doubtful or raw.is_closed() or raw.is_in_transaction():
            await _drop(borrowed.core)
        else:
            self._idle.append(borrowed)


async def _drop(core: AsyncConnection) -> None:
    await core.invalidate()
    await core.close()
