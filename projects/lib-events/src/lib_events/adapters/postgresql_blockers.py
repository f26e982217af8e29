"""Who keeps a commit waiting.

Another program that holds a run's row holds up all commits of a worker, for they go one after the other. To give up the
one that waits would do what it is about once more, again and again while the row is held, and only a person can say
whether what holds it may be ended. So it is told who does.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import text

from lib_events.adapters.postgresql_backends import Backend
from lib_events.database import Connection, Database, DatabaseError

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0  # a commit that waits for longer than this is held up by somebody
BLOCKERS = text("""
    SELECT pid, usename, application_name, state FROM pg_stat_activity WHERE pid = ANY(pg_blocking_pids(:pid))
""")


class Blockers:
    """Watches commits, and tells who holds up one that waits for long."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._telling: asyncio.Task[None] | None = None

    @contextmanager
    def watched(self, backend: Backend) -> Iterator[None]:
        """Tell once who holds up what `backend` does in the block."""
        timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._begin_telling, backend)
        try:
            yield
        finally:
            timer.cancel()

    def close(self) -> None:
        """Tell nothing any more."""
        if self._telling is not None:
            self._telling.cancel()

    def _begin_telling(self, backend: Backend) -> None:
        self._telling = asyncio.create_task(self._tell(backend), name="postgresql-blockers")

    async def _tell(self, backend: Backend) -> None:
        try:
            found = await self._database.read(_blockers, backend.pid)
        except DatabaseError:
            return
        for pid, user, program, state in found:
            logger.warning(
                "all commits have waited for %g s for what session %d of %s (%s, %s) holds; let it end, "
                "or end it: SELECT pg_terminate_backend(%d)",
                *(PATIENCE_SECONDS, pid, user, program or "unnamed", state, pid),
            )


def _blockers(connection: Connection, pid: int) -> list[tuple[int, str, str, str]]:
    return [tuple(row) for row in connection.execute(BLOCKERS, {"pid": pid})]
