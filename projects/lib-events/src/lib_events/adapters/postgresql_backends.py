"""Backends of connections that were lost: they are ended before the database is asked anything else.

A line may be cut while its backend, the server's process behind it, waits for a lock or its disk, and the server need
not notice: a proxy holds its own end. What was asked last comes true then, long after everybody has heard that it may
or may not be saved, has looked, and has written what follows from that: an older state of a row over a newer one, or a
run that nobody knows. So who hears of a lost connection and looks must see what stays.
"""

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Self

import asyncpg

WAIT_SECONDS = 5.0  # for a backend to be gone: it looks up from whatever it waits for
OWN = "SELECT pid, backend_start FROM pg_stat_get_activity(pg_backend_pid())"
# By its beginning, too: another one has its number, once it is gone. It waits a second for each to be gone.
END = """
    SELECT pid, backend_start, pg_terminate_backend(pid, 1000) AS is_gone
    FROM pg_stat_activity
    JOIN unnest($1::int[], $2::timestamptz[]) AS lost(pid, backend_start) USING (pid, backend_start)
    WHERE pid <> pg_backend_pid()
"""


@dataclass(frozen=True, slots=True)
class Backend:
    """A process of the server: its number, and when it began."""

    pid: int
    began: datetime

    @classmethod
    async def of(cls, raw: asyncpg.Connection) -> Self:
        """The one behind a connection, as the server knows it: a pooler between makes up numbers of its own."""
        return cls(*await raw.fetchrow(OWN))


class LostBackends:
    """Those of this process's lost connections that the server may still have."""

    def __init__(self) -> None:
        self._left: set[Backend] = set()

    def add(self, backend: Backend) -> None:
        """A connection was lost."""
        self._left.add(backend)

    async def end(self, raw: asyncpg.Connection) -> None:
        """End them by way of another connection; raises `ConnectionError` when one does not end in time."""
        deadline = time.monotonic() + WAIT_SECONDS
        while left := tuple(self._left):
            pids, beginnings = [backend.pid for backend in left], [backend.began for backend in left]
            found = await raw.fetch(END, pids, beginnings)
            # Not gone is also said of one that somebody else has just ended: the next look does not find it.
            here = {Backend(row["pid"], row["backend_start"]) for row in found if not row["is_gone"]}
            self._left -= set(left) - here
            if here and time.monotonic() > deadline:
                numbers = ", ".join(str(backend.pid) for backend in here)
                raise ConnectionError(f"PostgreSQL still does what lost connections asked for: processes {numbers}")
