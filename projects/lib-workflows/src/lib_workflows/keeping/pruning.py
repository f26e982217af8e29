"""What retention does in the database: finds what may go, and takes it away piece by piece.

Looking and measuring are done on snapshots, beside the writer. Two kinds of small transaction write: one marks runs,
and from then on no command touches them; the others each delete a piece of what the marked runs left, their own rows
last. So a crash leaves marks, and whoever comes next goes on with them; and an id is free only when nothing under it
is left.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    LargeBinary,
    Table,
    and_,
    bindparam,
    cast,
    delete,
    exists,
    func,
    literal,
    select,
    tuple_,
    union_all,
)

from lib_events.clock import MICROSECOND
from lib_events.database import Connection, DialectName, insert_into
from lib_workflows.runs.state import TERMINAL
from lib_workflows.tables import (
    approvals,
    attempts,
    event_waits,
    heartbeats,
    history,
    messages,
    pruned_runs,
    run_logs,
    runs,
    schedule_runs,
    sent_signals,
    updates,
    views,
)

LOOK_RUNS = 200  # looked at in one snapshot
PIECE_RUNS = 100
PIECE_ROWS = 500
PIECE_BYTES = 1024 * 1024
YOUNGEST = timedelta(hours=1)  # what ended since then is kept however many there are: somebody may be asking for it

# What a run leaves: each table with the column that tells its rows apart, and those that may be large.
PARTS: tuple[tuple[Table, Column[Any], Sequence[Column[Any]]], ...] = (
    (history, history.c.position, (history.c.input, history.c.output, history.c.error)),
    (messages, messages.c.number, (messages.c.payload,)),
    (sent_signals, sent_signals.c.key, ()),
    (updates, updates.c.id, (updates.c.reply,)),
    (event_waits, event_waits.c.operation, ()),
    (approvals, approvals.c.id, (approvals.c.about, approvals.c.form)),
    (views, views.c.name, (views.c.value,)),
    (attempts, attempts.c.operation, ()),
    (heartbeats, heartbeats.c.operation, (heartbeats.c.progress,)),
    (run_logs, run_logs.c.number, (run_logs.c.message,)),
    (schedule_runs, schedule_runs.c.schedule, ()),
)


class Ended(NamedTuple):
    """A run that is old enough, and whether it may go."""

    ended_at: int
    id: str
    is_free: bool


class Piece(NamedTuple):
    """What one transaction takes away: rows by key, runs, and the marks of runs of which nothing is left."""

    parts: Sequence[tuple[int, list[tuple[Any, ...]]]] = ()  # of `PARTS`, by index
    runs: Sequence[str] = ()
    marks: Sequence[str] = ()

    @property
    def rows(self) -> int:
        """How many rows they are."""
        return sum(len(keys) for _, keys in self.parts) + len(self.runs)


def cutoffs(connection: Connection, now: int, ages: Mapping[str, timedelta], keep_runs: int | None) -> dict[str, int]:
    """Until when runs of each status must have ended to go."""
    surplus = -1
    if keep_runs is not None:
        surplus = min(_ended_before_the_last(connection, keep_runs), now - YOUNGEST // MICROSECOND)
    return {status: max(now - ages[status] // MICROSECOND, surplus) for status in sorted(TERMINAL)}


def _ended_before_the_last(connection: Connection, count: int) -> int:
    """When the newest run ended that comes before the last `count`; -1 when there are no more."""
    # One branch a status: each is read in the order of its index, and they are merged.
    branches = [
        select(runs.c.ended_at).where(runs.c.ended_at.is_not(None), runs.c.status == status)
        for status in sorted(TERMINAL)
    ]
    merged = union_all(*branches).subquery()
    query = select(merged.c.ended_at).order_by(merged.c.ended_at.desc()).offset(count).limit(1)
    found: int | None = connection.scalar(query)
    return -1 if found is None else found


def look(connection: Connection, status: str, until: int, after: tuple[int, str]) -> list[Ended]:
    """The next runs of `status` that ended by `until`, oldest first, from behind `after`."""
    query = (
        select(runs.c.ended_at, runs.c.id, _is_free().label("is_free"))
        .where(
            runs.c.ended_at.is_not(None),
            runs.c.status == status,
            tuple_(runs.c.ended_at, runs.c.id) > after,
            runs.c.ended_at <= until,
        )
        .order_by(runs.c.ended_at, runs.c.id)
        .limit(LOOK_RUNS)
    )
    return [Ended(row.ended_at, row.id, bool(row.is_free)) for row in connection.execute(query)]


def _is_free() -> ColumnElement[bool]:
    """Whether nobody needs the run: a parent that may ask again for its result, or children, which go first."""
    family = runs.alias()
    unfinished_parent = exists().where(family.c.id == runs.c.parent, family.c.ended_at.is_(None))
    child = exists().where(family.c.parent == runs.c.id)
    return and_(~unfinished_parent, ~child)


def mark(connection: Connection, run_ids: Sequence[str], until: int) -> int:
    """Mark those of the runs that may still go; returns how many."""
    query = select(runs.c.id).where(runs.c.id.in_(run_ids), runs.c.ended_at <= until, _is_free())
    # Whoever holds one is giving it a new life, or forks it: another time.
    rows = [{"run": run_id} for run_id in connection.scalars(query.with_for_update(skip_locked=True))]
    if rows:
        connection.execute(insert_into(connection, pruned_runs).values(rows).on_conflict_do_nothing())
    return len(rows)


def next_piece(connection: Connection) -> Piece | None:
    """At most `PIECE_ROWS` rows and about `PIECE_BYTES` of the marked runs; None when no run is marked."""
    marked = list(connection.scalars(select(pruned_runs.c.run).limit(PIECE_RUNS)))
    if not marked:
        return None
    room = _Room(PIECE_ROWS, PIECE_BYTES)
    parts = []
    for index, (table, key, large) in enumerate(PARTS):
        keys = _fill(connection, room, (table.c.run, key), large, marked)
        if keys:
            parts.append((index, keys))
    if room.is_used_up():
        return Piece(parts)
    gone = [run_id for (run_id,) in _fill(connection, room, (runs.c.id,), (runs.c.input, runs.c.output), marked)]
    # A mark may be all that is left: another leader was faster.
    return Piece(parts, gone, gone if room.is_used_up() else marked)


def take_away(connection: Connection, piece: Piece) -> Piece:
    """Delete what is still to be deleted of a piece; returns that."""
    piece = _still_marked(connection, piece)
    for index, keys in piece.parts:
        table, key, _ = PARTS[index]
        each = delete(table).where(table.c.run == bindparam("of_run"), key == bindparam("at_key"))
        if keys:
            connection.execute(each, [{"of_run": run_id, "at_key": at} for run_id, at in keys])
    connection.execute(delete(runs).where(runs.c.id.in_(piece.runs)))
    connection.execute(delete(pruned_runs).where(pruned_runs.c.run.in_(piece.marks)))
    return piece


def _still_marked(connection: Connection, piece: Piece) -> Piece:
    """The part of a piece whose runs are marked now: where somebody else led meanwhile, an id may mean a new run."""
    of_runs = {run_id for _, keys in piece.parts for run_id, _ in keys} | {*piece.runs, *piece.marks}
    query = select(pruned_runs.c.run).where(pruned_runs.c.run.in_(of_runs))
    marked = set(connection.scalars(query.with_for_update()))
    parts = [(index, [key for key in keys if key[0] in marked]) for index, keys in piece.parts]
    return Piece(parts, sorted(marked & {*piece.runs}), sorted(marked & {*piece.marks}))


class _Room:
    """How much may still go in this transaction."""

    def __init__(self, rows: int, size: int) -> None:
        self.rows = rows
        self.bytes = size

    def is_used_up(self) -> bool:
        """Whether the rest is for another transaction."""
        return self.rows <= 0 or self.bytes <= 0


def _fill(
    connection: Connection,
    room: _Room,
    key: Sequence[Column[Any]],
    large: Sequence[Column[Any]],
    marked: Sequence[str],
) -> list[tuple[Any, ...]]:
    """The keys of the rows of `marked` that there is room for."""
    if room.is_used_up():
        return []
    size = size_of(connection.dialect_name, large)
    result = connection.execute(select(*key, size).where(key[0].in_(marked)).limit(room.rows))
    found = []
    # SQLite reads as far as it is asked to: large rows are not all measured before the first goes.
    for *values, size_in_bytes in map(tuple, result):
        found.append(tuple(values))
        room.rows -= 1
        room.bytes -= size_in_bytes
        if room.is_used_up():
            break
    result.close()
    return found


def size_of(dialect: DialectName, columns: Sequence[Column[Any]]) -> ColumnElement[int]:
    """The bytes of the texts in these columns of a row."""
    total: ColumnElement[int] = literal(0)
    for column in columns:
        # octet_length came to SQLite in 3.43, and Python is built with older ones.
        octets = func.octet_length(column) if dialect == "postgresql" else func.length(cast(column, LargeBinary))
        total += func.coalesce(octets, 0)
    return total
