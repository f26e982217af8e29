"""Renews a PostgreSQL worker's lease from a thread, so that a blocked event loop keeps its runs."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import cast

import asyncpg

from lib_events.adapters.postgresql import PostgresqlDatabase
from lib_events.adapters.postgresql_errors import DRIVER_ERRORS
from lib_events.database import Database

logger = logging.getLogger(__name__)

RENEW = """
    UPDATE workers SET lease_until_at = (extract(epoch FROM clock_timestamp()) + $3) * 1000000
    WHERE id = $1 AND epoch = $2
"""


class Renewal:
    """Renews the lease from a thread with a connection of its own: a blocked event loop keeps its lease.

    The lease has just begun: a life that is over before it is to be renewed needs no such connection.
    """

    def __init__(
        self,
        database: Database,
        worker_id: str,
        epoch: int,
        lease_seconds: float,
        on_lost: Callable[[], None],
    ) -> None:
        self._database = cast("PostgresqlDatabase", database)  # a lease is of workers that share a server
        self._life = (worker_id, epoch, lease_seconds)
        self._on_lost = on_lost
        self._home = asyncio.get_running_loop()
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._live, name="worker-lease", daemon=True)

    def start(self) -> None:
        """Begin renewing."""
        self._thread.start()

    def stop(self) -> None:
        """Stop renewing; blocks until the thread has ended."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(timeout=30)

    def _live(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._renew())
        finally:
            self._loop.close()

    async def _renew(self) -> None:
        pause = self._life[2] / 4
        connection: asyncpg.Connection | None = None
        while not await self._is_stopped_within(pause):
            try:
                if connection is None or connection.is_closed():
                    connection = await self._database.connect()
                if await connection.execute(RENEW, *self._life) == "UPDATE 0":
                    self._home.call_soon_threadsafe(self._on_lost)
                    break
            except DRIVER_ERRORS as error:
                logger.warning("the worker's lease could not be renewed: %s", error)
        if connection is not None and not connection.is_closed():
            await connection.close(timeout=5)

    async def _is_stopped_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()
