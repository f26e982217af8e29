"""The event log: appended to by every transaction, read by position. Outbox, feed and look-back at once."""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from sqlalchemy import Row, bindparam, func, select, text, update

from lib_events.database import Connection, Schema
from lib_events.event import EncodedEvent, Event, Recordable, decode
from lib_events.event_filter import Wanted
from lib_events.prepared import Prepared
from lib_events.statement import Statement, Write
from lib_events.tables import SEGMENT_TYPE, event_log_state, events, metadata
from lib_events.tail import LogRow

SCHEMA = Schema("lib_events", metadata, "lib_events.migrations")
PLACED_TOPIC = "placed"  # events got positions: whoever reads the log may read on
SEGMENT_LIMIT = 1_000  # events in one segment
PLACE_LIMIT = 1_000  # rows placed in one transaction
PAGE_BYTES = 4 * 1024 * 1024  # of bodies, after which a page of whoever follows the log ends
FIRST_ROWS = 32  # read of a page before it is known how large they are
PLACE = Prepared(
    text("""
    WITH unplaced AS (
        SELECT sequence, count FROM events WHERE last_position IS NULL ORDER BY sequence LIMIT :limit
    ), placed AS (
        SELECT sequence, CAST(:start AS BIGINT) + SUM(count) OVER (ORDER BY sequence) AS position FROM unplaced
    )
    UPDATE events SET last_position = placed.position FROM placed WHERE events.sequence = placed.sequence
""")
)
SEEK_UNPLACED = Prepared(select(events.c.sequence).where(events.c.last_position.is_(None)).limit(1))
# Whoever places holds this row: two leaders in the moment of a takeover take turns.
LOCK = Prepared(select(event_log_state.c.placed_position).with_for_update())
LAST_POSITION = Prepared(select(func.max(events.c.last_position).label("position")))
MOVE = Prepared(update(event_log_state).values(placed_position=bindparam("end")))
STATE = event_log_state.c
HEAD = Prepared(select(STATE.epoch, STATE.placed_position, STATE.pruned_position))
# Of rows without a position those behind the last one that has one are counted: older versions of what is placed may
# still be in the index, and whoever asks need not read them all. `insert_run` of lib_workflows asks for the same.
PLACED_POSITION = select(STATE.placed_position).scalar_subquery()
LAST_PLACED = select(events.c.sequence).where(events.c.last_position == PLACED_POSITION).scalar_subquery()
UNPLACED = (
    select(events.c.count)
    .where(events.c.last_position.is_(None), events.c.sequence > func.coalesce(LAST_PLACED, 0))
    .limit(bindparam("most"))
    .subquery()
)
COUNTED = select(func.sum(UNPLACED.c.count)).scalar_subquery()
COMMITTED = Prepared(select((STATE.placed_position + func.coalesce(COUNTED, 0)).label("position")))
EVERY_ROW = 1 << 62
# So many are counted for a run that starts: more is behind a relay that is gone, and starts must not become slower and
# slower by it. Such a run may find what was published just before it.
START_ROWS = 50_000

APPEND_EVENTS = Statement.load(
    "lib_events",
    "append_events",
    {
        "id": "text",
        "source": "text",
        "type": "text",
        "subject": "text",
        "time": "bigint",
        "correlation": "text",
        "imported": "boolean",
        "count": "integer",
        "body": "bytea",
    },
)
# The same for events that may be there already, as those of other services.
IMPORT_EVENTS = Statement.load("lib_events", "import_events", dict(APPEND_EVENTS.columns))


type StoredRow = LogRow | Row[Any]


class CursorRejected(Exception):
    """A cursor cannot be resumed from; the text says why and what to do."""

    def __init__(self, reason: Literal["malformed", "other_epoch", "future", "pruned"], detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place in one database's event log, written `<epoch>.<position>`; reading goes on after it."""

    epoch: int
    position: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.position}"

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Read `<epoch>.<position>`; raises `CursorRejected`."""
        match = re.fullmatch(r"(\d{1,9})\.(\d{1,18})", text)
        if match is None:
            raise CursorRejected(
                "malformed", f"cursor must look like 1.42, got {text[:40]!r}; leave it out to start at the beginning"
            )
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True, slots=True)
class Placed:
    """An event with its position in the log; `imported` when another service published it."""

    position: int
    event: Event
    imported: bool


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows in order, how far the log was searched for them (resume from `position`), and where it ended then."""

    found: Sequence[StoredRow]
    position: int
    head: Cursor
    pruned: int = 0  # up to here nothing is kept

    @classmethod
    def take(
        cls, rows: Iterable[StoredRow], *, limit: int, bytes_limit: int | None, end: int, head: Cursor, pruned: int = 0
    ) -> "Rows":
        """Take of at most `limit` rows, which are all up to `end` if they are fewer, those with the first bytes."""
        remaining = iter(rows)
        found: list[StoredRow] = []
        space = bytes_limit or math.inf
        for row in remaining:
            found.append(row)
            space -= len(row.body)
            if space <= 0:
                break
        is_end = len(found) < limit and next(remaining, None) is None
        return cls(found, end if is_end else found[-1].last_position, head, pruned)


@dataclass(frozen=True, slots=True)
class Page:
    """Events in order, how far the log was searched for them (resume from `position`), and where it ended then."""

    events: Sequence[Placed]
    position: int
    head: Cursor
    pruned: int = 0  # up to here nothing is kept
    size: int = 0  # bytes of the rows they are of


def append_writes(new_events: Sequence[Recordable]) -> list[Write]:
    """Return the hot rows that append `new_events`: one segment for the packed ones, and a row each for the others.

    The segment comes first: whoever follows a run has heard of its last step when they hear of its end.
    """
    encoded = [event.encode() for event in new_events]
    packed = [event for event in encoded if event.packed]
    starts = range(0, len(packed), SEGMENT_LIMIT)
    segments = [_segment(packed[start : start + SEGMENT_LIMIT]) for start in starts]
    return segments + [_row(event) for event in encoded if not event.packed]


def imported_row(event: Event) -> dict[str, Any]:
    """Return the row of an event that another service published."""
    row = dict(zip((name for name, _ in APPEND_EVENTS.columns), _row(event.encode()).row, strict=True))
    return row | {"imported": True}


def head(connection: Connection) -> Cursor:
    """The cursor after the last event that has a position."""
    return _head_and_pruned(connection)[0]


def committed_position(connection: Connection, most: int = EVERY_ROW) -> int:
    """The position that the last committed event has, or will have once it is placed: no later one is given where more
    than `most` rows have no position yet.

    What is published from now on comes after it; what is being committed at this very moment, before or after it.
    """
    return int(connection.row(COMMITTED, most=most).position)


def _head_and_pruned(connection: Connection) -> tuple[Cursor, int]:
    row = connection.row(HEAD)
    return Cursor(row.epoch, row.placed_position), row.pruned_position


def check_cursor(connection: Connection, cursor: Cursor) -> int:
    """Return the position to read after; raises `CursorRejected`: of another epoch, from the future, or pruned."""
    state = connection.execute(select(event_log_state)).one()
    if cursor.epoch != state.epoch:
        raise CursorRejected(
            "other_epoch",
            f"cursor must be of epoch {state.epoch}, got {cursor}; the log was restored, start without one",
        )
    if cursor.position > state.placed_position:
        raise CursorRejected(
            "future",
            f"cursor must not be after {state.epoch}.{state.placed_position}, got {cursor}; "
            "it belongs to another database",
        )
    if cursor.position < state.pruned_position:
        raise CursorRejected(
            "pruned",
            f"cursor must not be before {state.epoch}.{state.pruned_position}, got {cursor}; "
            "older events are no longer kept, start without one",
        )
    return cursor.position


def place(connection: Connection) -> int:
    """Give positions to committed rows that have none, and return how many positions were given."""
    if connection.row(SEEK_UNPLACED) is None:
        return 0
    connection.take_over_positions()
    start: int = connection.row(LOCK).placed_position
    connection.change(PLACE, limit=PLACE_LIMIT, start=start)
    end: int = connection.row(LAST_POSITION).position
    connection.change(MOVE, end=end)
    connection.notify(PLACED_TOPIC)
    return end - start


def read_after(
    connection: Connection,
    position: int,
    *,
    types: Sequence[str] = (),
    subject: str | None = None,
    correlation: str | None = None,
    own_only: bool = False,
    limit: int = 500,
    bytes_limit: int | None = None,
) -> Page:
    """Read up to `limit` rows after `position`, in order of position, or less when `bytes_limit` is reached.

    `types` are exact names or patterns ending in `.*`; segments are opened and their events filtered too.
    """
    wanted = Wanted(types=tuple(types), subject=subject, correlation=correlation, own_only=own_only)
    return open_rows(rows_after(connection, position, wanted, limit=limit, bytes_limit=bytes_limit), position, wanted)


def read_unplaced(connection: Connection, types: Sequence[str]) -> Sequence[Event]:
    """Read the own events of these types that are committed and have no position yet, in insertion order.

    For whoever must know of them, even while nobody gives positions; those that are packed into segments are not read.
    """
    unplaced = events.c.last_position.is_(None) & events.c.imported.is_(False) & events.c.type.in_(types)
    query = select(events.c.body).where(unplaced).order_by(events.c.sequence)
    return [Event.from_json(body) for body in connection.scalars(query)]


def rows_after(
    connection: Connection, position: int, wanted: Wanted, *, limit: int, bytes_limit: int | None = None
) -> Rows:
    """Read up to `limit` rows after `position`, in order, as they are stored, or less when `bytes_limit` is reached."""
    # The head comes first: what is placed while we read must not be skipped.
    log_head, pruned = _head_and_pruned(connection)
    rows, is_end = _some_after(connection, position, wanted, limit, bytes_limit or math.inf)
    end = max(position, log_head.position)
    return Rows.take(
        rows, limit=limit if is_end else len(rows), bytes_limit=bytes_limit, end=end, head=log_head, pruned=pruned
    )


def _some_after(
    connection: Connection, position: int, wanted: Wanted, limit: int, space: float
) -> tuple[list[StoredRow], bool]:
    """Read rows until there are `limit`, or `space` is used up; returns them, and whether there are no more.

    Rows may be of megabytes, and a thousand of those in memory are more than a process has: so a few are read first,
    then twice as many while there seems to be room for them.
    """
    given = {"subject": wanted.subject, "correlation": wanted.correlation}
    query, found, size = _after(wanted.shape), list[StoredRow](), 0
    most = limit if space == math.inf else min(limit, FIRST_ROWS)
    while True:
        rows = connection.rows(query, after=position, most=most, **given)
        found += rows
        if len(rows) < most:
            return found, True
        size += sum(len(row.body) for row in rows)
        left = limit - len(found)
        if left == 0 or size >= space:
            return found, False
        position, room = rows[-1].last_position, int((space - size) * len(found) / max(size, 1)) + 1
        most = min(left, room, 2 * most)


@lru_cache(256)  # followers ask the same again and again
def _after(wanted: Wanted) -> Prepared:
    e = events.c
    query = (
        select(e.last_position, e.count.label("size"), e.type, e.time, e.imported, e.body)
        .where(events.c.last_position > bindparam("after"))
        .order_by(events.c.last_position)
    )
    return Prepared(wanted.narrow(query).limit(bindparam("most")))


def open_rows(rows: Rows, position: int, wanted: Wanted) -> Page:
    """Decode rows that were read after `position`: what is wanted of them."""
    found = [
        placed
        for row in rows.found
        if row.size == 1 or wanted.may_be_in(row.body)
        for placed in _open_row(row)
        if placed.position > position and wanted.matches(placed.event)
    ]
    return Page(found, rows.position, rows.head, rows.pruned, sum(len(row.body) for row in rows.found))


def _open_row(row: StoredRow) -> Iterator[Placed]:
    decoded = decode(row.body)
    batch = decoded if isinstance(decoded, list) else [decoded]
    for offset, attributes in enumerate(batch, start=1):
        yield Placed(row.last_position - row.size + offset, Event.from_dict(attributes), row.imported)


def _row(event: EncodedEvent) -> Write:
    *attributes, body, _ = event
    return Write(APPEND_EVENTS, (*attributes, False, 1, body))


def _segment(packed: Sequence[EncodedEvent]) -> Write:
    first = packed[0]
    body = b"[" + b",".join([event.body for event in packed]) + b"]"
    return Write(
        APPEND_EVENTS,
        (
            f"segment-{first.id}",
            first.source,
            SEGMENT_TYPE,
            None,
            first.time,
            None,
            False,
            len(packed),
            body,
        ),
    )
