"""Looks on SQLite: the loop asks itself, and all looks of one turn share a snapshot.

To begin a snapshot and to end it costs half of what the rows of a request do. The next turn of the loop ends it, and so
does each commit, before anybody hears of that: whoever knows of something that was saved looks at what is there now.
"""

import asyncio
import sqlite3
from typing import cast

from sqlalchemy import Connection as CoreConnection
from sqlalchemy import Engine


class Looks:
    """The loop's own connection, once it has looked, and the snapshot it is in."""

    def __init__(self, reader: Engine) -> None:
        self._reader = reader
        self._core: CoreConnection | None = None
        self._raw: sqlite3.Connection | None = None

    def begin(self) -> tuple[CoreConnection, sqlite3.Connection]:
        """Return the connection, in the snapshot of this turn."""
        if self._core is None or self._raw is None:
            self._core = self._reader.connect()
            self._raw = raw_of(self._core)
        if not self._raw.in_transaction:
            asyncio.get_running_loop().call_soon(self.end)
            self._raw.execute("BEGIN")
        return self._core, self._raw

    def end(self) -> None:
        """End the snapshot, if there is one: whoever looks from now on sees what is there now."""
        if self._raw is not None and self._raw.in_transaction:
            self._raw.execute("ROLLBACK")

    def close(self) -> None:
        """Give the connection back; safe to call twice."""
        self.end()
        if self._core is not None:
            self._core.close()
        self._core = self._raw = None


def raw_of(core: CoreConnection) -> sqlite3.Connection:
    """Return the driver's connection under SQLAlchemy's."""
    return cast("sqlite3.Connection", core.connection.dbapi_connection)
