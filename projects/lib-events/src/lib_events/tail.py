"""The tail of the event log: the rows committed last, in memory, so that whoever follows need not ask the database.

It is the end of what the table holds, without a gap, or nothing. The adapter that gives positions as it commits
extends it once a commit is on disk; whoever stands before it reads the table.
"""

from bisect import bisect_right
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, NamedTuple

ROWS_LIMIT = 10_000
BYTES_LIMIT = 8 * 1024 * 1024  # of bodies


type Values = tuple[Any, ...]  # of a `LogRow`; made into one when read, for writing must not pay for that


class LogRow(NamedTuple):
    """A row of the event log as it is stored; it covers the positions `last_position - size + 1 … last_position`."""

    last_position: int
    id: str
    source: str
    type: str
    subject: str | None
    time: int
    correlation: str | None
    imported: bool
    size: int
    body: bytes


_last_position = itemgetter(LogRow._fields.index("last_position"))
_body = itemgetter(LogRow._fields.index("body"))


class Tail:
    """What is in memory of one log; empty where nobody extends it."""

    def __init__(self, *, rows_limit: int = ROWS_LIMIT, bytes_limit: int = BYTES_LIMIT) -> None:
        self.epoch = 0
        self._rows_limit = rows_limit
        self._bytes_limit = bytes_limit
        self._rows: list[Values] = []
        self._bytes = 0
        self._start = 0  # all rows after this position are here …
        self._end: int | None = None  # … up to this one; None: nothing is known

    @property
    def end(self) -> int:
        """The last position in it; 0 while it is empty."""
        return self._end or 0

    def extend(self, epoch: int, rows: Sequence[Values]) -> None:
        """Take in rows that are on disk, in order; if they do not follow what is here, that is forgotten."""
        first = LogRow._make(rows[0])
        start = first.last_position - first.size
        if (epoch, start) != (self.epoch, self._end):
            self.clear()
            self.epoch, self._start = epoch, start
        self._rows += rows
        self._bytes += _size(rows)
        self._end = _last_position(rows[-1])
        self._drop_oldest()

    def clear(self) -> None:
        """Forget everything: what is here is not the end of the table any more."""
        self._rows.clear()
        self._bytes, self._end = 0, None

    def after(self, position: int, *, limit: int) -> Sequence[LogRow] | None:
        """Return up to `limit` rows that reach beyond `position`; None: only the table knows."""
        if self._end is None or not self._start <= position <= self._end:
            return None
        if position == self._end:
            return ()
        first = bisect_right(self._rows, position, key=_last_position)
        return [LogRow._make(values) for values in self._rows[first : first + limit]]

    def _drop_oldest(self) -> None:
        surplus = max(0, len(self._rows) - self._rows_limit)
        size = self._bytes - _size(self._rows[:surplus])
        while size > self._bytes_limit:
            size -= len(_body(self._rows[surplus]))
            surplus += 1
        if surplus:
            self._start = _last_position(self._rows[surplus - 1])
            self._bytes = size
            del self._rows[:surplus]


def _size(rows: Sequence[Values]) -> int:
    return sum(map(len, map(_body, rows)))
