"""Positions on SQLite: with one writer the order of insertion is the order of commits, so events get theirs at once.

Elsewhere the relay gives them after the commit. Imported events may turn out to be there already: where one is, those
that came with it are inserted without and get their positions at the end of the group.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any

from lib_events.event_log import APPEND_EVENTS, IMPORT_EVENTS
from lib_events.tail import Values

COLUMNS = [name for name, _ in APPEND_EVENTS.columns]
COUNT = COLUMNS.index("count")
APPEND_PLACED = f"INSERT INTO events (last_position, {', '.join(COLUMNS)}) VALUES (?{', ?' * len(COLUMNS)})"  # noqa: S608
IMPORT_PLACED = f"{APPEND_PLACED} ON CONFLICT (source, id) DO NOTHING"
READ = "SELECT epoch, placed_position FROM event_log_state"
WRITE = "UPDATE event_log_state SET placed_position = ?"
SEEK_UNPLACED = "SELECT 1 FROM events WHERE last_position IS NULL LIMIT 1"

type Savepoint = tuple[int | None, int]


class Positions:
    """The positions given in the transaction under way."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        self.epoch = 0
        self.rows: list[Values] = []  # those inserted with positions
        self._raw = raw
        self._given: int | None = None  # the last one given; None while this transaction has given none

    def begin(self) -> None:
        """A transaction begins."""
        self._given, self.rows = None, []

    @property
    def given(self) -> bool:
        """Whether this transaction has given any."""
        return self._given is not None

    def savepoint(self) -> Savepoint:
        """What to go back to if the savepoint that begins now is rolled back."""
        return self._given, len(self.rows)

    def roll_back(self, savepoint: Savepoint) -> None:
        """Take back what was given since."""
        self._given, kept = savepoint
        del self.rows[kept:]

    def hand_over(self) -> None:
        """Let somebody else give positions in this transaction: they begin where we are, and we where they end."""
        self._write_down()
        self.begin()

    def append(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert the rows of events with their positions."""
        self._insert(APPEND_PLACED, rows)

    def append_new(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert the rows of events that are not there yet, with their positions if none of them is."""
        self._raw.execute("SAVEPOINT imports")
        savepoint = self.savepoint()
        if self._insert(IMPORT_PLACED, rows) != len(rows):
            self._raw.execute("ROLLBACK TO imports")
            self.roll_back(savepoint)
            self._raw.executemany(IMPORT_EVENTS.sqlite, rows)
        self._raw.execute("RELEASE imports")

    def finish(self) -> bool:
        """Write down what was given; returns whether there are rows without a position."""
        self._write_down()
        return self._raw.execute(SEEK_UNPLACED).fetchone() is not None

    def _write_down(self) -> None:
        if self._given is not None:
            self._raw.execute(WRITE, (self._given,))

    def _insert(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> int:
        """Insert rows with positions and return how many were inserted."""
        if self._given is None:
            self.epoch, self._given = self._raw.execute(READ).fetchone()
        placed: list[Values] = []
        for row in rows:
            self._given += row[COUNT]
            placed.append((self._given, *row))
        self.rows += placed
        return self._raw.executemany(statement, placed).rowcount
