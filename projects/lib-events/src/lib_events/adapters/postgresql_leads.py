"""Who leads on PostgreSQL: advisory locks of one connection per process, which PostgreSQL frees when it ends.

It ends by itself, too, when nothing is said on it for a while: a process that is stopped, or whose loop somebody
blocks, leads in nothing, and must not keep others from it.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg

from lib_events.adapters.postgresql_errors import DRIVER_ERRORS
from lib_events.database import LeadLost
from lib_events.lifecycle import first_of

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5  # a dead leader is replaced this late
BEAT_SECONDS = 2.0  # so often a process says that it is there …
SILENT_SECONDS = 10.0  # … and so long it may be silent
# Asked again and again: the waiting form's open snapshot would keep VACUUM from cleaning.
TRY = "SELECT key FROM unnest($1::bigint[]) AS key WHERE pg_try_advisory_lock(key)"
FREE = "SELECT pg_advisory_unlock($1)"


class Leads:
    """The roles this process leads in, or waits to; of all processes, and within this one, one leads in each."""

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]]) -> None:
        self._connect = connect
        self._connection: asyncpg.Connection | None = None
        self._lost = asyncio.Event()  # of the present connection
        self._turns: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._waiting: dict[int, asyncio.Future[asyncio.Event]] = {}
        self._asked = asyncio.Event()
        self._seeking: asyncio.Task[None] | None = None
        self._asking = asyncio.Lock()  # a connection answers one question at a time
        self._beating: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def hold(self, key: int) -> AsyncIterator[None]:
        """Wait to lead in the role of that key, then run the block until that ends or the lead is lost: `LeadLost`."""
        async with self._turns[key]:
            lost = await self._wait(key)
            try:
                async with _until(lost):
                    yield
            finally:
                await self._free(key, lost)

    async def close(self) -> None:
        """Free everything."""
        for task in (self._seeking, self._beating):
            if task is not None:
                task.cancel()
        if self._connection is not None:
            await self._connection.close(timeout=5)

    async def _wait(self, key: int) -> asyncio.Event:
        waiting: asyncio.Future[asyncio.Event] = asyncio.get_running_loop().create_future()
        self._waiting[key] = waiting
        self._asked.set()
        if self._seeking is None or self._seeking.done():
            self._seeking = asyncio.create_task(self._seek(), name="postgresql-leads")
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled():  # won in the moment we gave up
                await self._free(key, waiting.result())
            raise
        finally:
            self._waiting.pop(key, None)

    async def _seek(self) -> None:
        while self._waiting:
            self._asked.clear()
            try:
                await self._try_all()
            except DRIVER_ERRORS as error:
                logger.warning("nobody can lead while PostgreSQL is away: %s", error)
            if self._waiting:
                await first_of(self._asked, seconds=POLL_SECONDS)

    async def _try_all(self) -> None:
        async with self._asking:
            if self._connection is None or self._connection.is_closed():
                await self._begin()
            assert self._connection is not None  # noqa: S101 - for the type checker
            try:
                for row in await self._connection.fetch(TRY, list(self._waiting)):
                    waiting = self._waiting.pop(row["key"], None)
                    if waiting is None or waiting.cancelled():
                        await self._connection.execute(FREE, row["key"])
                    else:
                        waiting.set_result(self._lost)
            except BaseException:
                self._connection.terminate()  # a lock outlives its statement: nobody knows what it holds
                raise

    async def _begin(self) -> None:
        connection, lost = await self._connect(), asyncio.Event()
        try:
            await connection.execute(f"SET idle_session_timeout = {round(SILENT_SECONDS * 1000)}")
        except BaseException:
            connection.terminate()
            raise
        connection.add_termination_listener(lambda _connection: lost.set())
        self._connection, self._lost = connection, lost
        if self._beating is not None:
            self._beating.cancel()
        self._beating = asyncio.create_task(self._beat(connection, lost), name="postgresql-leads-beat")

    async def _beat(self, connection: asyncpg.Connection, lost: asyncio.Event) -> None:
        """Say that this process is there, which one whose loop is blocked cannot, and see whether the server is.

        The driver does not tell of an end that meets a question which is just being asked.
        """
        try:
            while not connection.is_closed():
                await asyncio.sleep(BEAT_SECONDS)  # between two beats; whoever closes us cancels it
                try:
                    async with self._asking:
                        await connection.execute("SELECT 1", timeout=SILENT_SECONDS)
                except DRIVER_ERRORS:
                    connection.terminate()
        finally:
            lost.set()

    async def _free(self, key: int, lost: asyncio.Event) -> None:
        """Free what is held by the connection of which `lost` tells; where that fails, it goes with all it holds."""
        connection = self._connection
        if connection is None or lost is not self._lost:
            return
        try:
            async with self._asking:
                if not connection.is_closed():
                    await connection.execute(FREE, key)
        except BaseException as error:
            connection.terminate()
            if not isinstance(error, DRIVER_ERRORS):
                raise


@asynccontextmanager
async def _until(lost: asyncio.Event) -> AsyncIterator[None]:
    """Run the block; as soon as the event is set it is cancelled, as by a timeout, and raises `LeadLost`."""
    try:
        async with asyncio.timeout(None) as term:
            ending = asyncio.create_task(_end(term, lost), name="postgresql-lead")
            try:
                yield
            finally:
                ending.cancel()
    except TimeoutError as error:
        if term.expired():
            raise LeadLost("the connection that holds the lead was lost") from error
        raise


async def _end(term: asyncio.Timeout, lost: asyncio.Event) -> None:
    await lost.wait()
    term.reschedule(asyncio.get_running_loop().time())
