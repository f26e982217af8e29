"""Positions on SQLite: with one writer the order of insertion is the order of commits, so events get theirs at once.

Elsewhere the relay gives them after the commit. Only rows that may turn out to be there already, as imported ones,
are inserted without and get their positions at the end of the group.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

from lib_events.event_log import APPEND_EVENTS

COLUMNS = [name for name, _ in APPEND_EVENTS.columns]
COUNT = COLUMNS.index("count")
APPEND_PLACED = f"INSERT INTO events (last_position, {', '.join(COLUMNS)}) VALUES (?{', ?' * len(COLUMNS)})"  # noqa: S608
READ = "SELECT placed_position FROM event_log_state"
WRITE = "UPDATE event_log_state SET placed_position = ?"
SEEK_UNPLACED = "SELECT 1 FROM events WHERE last_position IS NULL LIMIT 1"


class Positions:
    """The positions given in the transaction under way."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._raw = raw
        self._given: int | None = None  # the last one given; None while this transaction has given none

    def begin(self) -> None:
        """A transaction begins."""
        self._given = None

    @property
    def given(self) -> bool:
        """Whether this transaction has given any."""
        return self._given is not None

    def savepoint(self) -> int | None:
        """What to go back to if the savepoint that begins now is rolled back."""
        return self._given

    def roll_back(self, savepoint: int | None) -> None:
        """Take back what was given since."""
        self._given = savepoint

    def append(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Insert the rows of events with their positions."""
        if self._given is None:
            (self._given,) = self._raw.execute(READ).fetchone()
        self._raw.executemany(APPEND_PLACED, self._place(rows))

    def finish(self) -> bool:
        """Write down what was given; returns whether there are rows without a position."""
        if self._given is not None:
            self._raw.execute(WRITE, (self._given,))
        return self._raw.execute(SEEK_UNPLACED).fetchone() is not None

    def _place(self, rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        for row in rows:
            assert self._given is not None  # noqa: S101 - for the type checker
            self._given += row[COUNT]
            yield (self._given, *row)
