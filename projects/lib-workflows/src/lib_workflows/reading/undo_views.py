"""What of a run can be undone, is being undone and has been, read from its rows.

An operation's row names what undoes it. When a run begins to undo, one row more says so: why, and which operations in
which order. From both follows, at any moment, which are undone, which one is under way and which are still to come.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import batched
from typing import Any, Literal

from sqlalchemy import ScalarSelect, and_, select

from lib_events.clock import to_datetime
from lib_events.database import Connection
from lib_workflows.authoring.operation import AWAITED_KINDS
from lib_workflows.errors import ErrorRecord
from lib_workflows.runs.record import UNDO_SUFFIX, UNDOING_OPERATION
from lib_workflows.runs.state import UNDER_WAY
from lib_workflows.tables import attempts, history, runs
from lib_workflows.values.codec import decode_json
from lib_workflows.values.failure import decode_record

AT_ONCE = 1_000  # operations that one query asks for

type UndoStatus = Literal["declared", "pending", "running", "undone", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoView:
    """What undoes an operation, and how far that is.

    `declared`: nothing asks for it. `pending`: the run undoes what it did, and comes to this later. `running`: it is
    the one under way, at its `attempt`-th attempt; `error` is that of the one before. `undone` and `failed` are final.
    """

    name: str
    status: UndoStatus
    attempt: int = 0
    error: ErrorRecord | None = None
    ended_at: datetime | None = None


def undo_views(connection: Connection, run_id: str, rows: Sequence[Any]) -> dict[str, UndoView]:
    """What undoes each operation among `rows` of a history that has something to undo, and how far that is."""
    found = {row.operation: UndoView(name=name, status="declared") for row in rows if (name := undo_of(row))}
    plan = _plan(connection, run_id) if found else ()
    if not plan:
        return found
    ended = {
        row.operation.removesuffix(UNDO_SUFFIX): _ended(row) for row in _undo_rows(connection, run_id, list(found))
    }
    current = _under_way(connection, run_id, plan)
    coming = frozenset(plan) if current else frozenset()
    for operation, view in found.items():
        if operation in ended:
            found[operation] = replace(ended[operation], name=view.name)
        elif operation == current:
            found[operation] = _running(connection, run_id, operation, view.name)
        elif operation in coming:
            found[operation] = replace(view, status="pending")
    return found


def undoing_since() -> ScalarSelect[int]:
    """When the run of a row of `runs` began to undo, for a select; found by a key, so that a list may ask for each."""
    here = and_(history.c.run == runs.c.id, history.c.operation == UNDOING_OPERATION, history.c.voided == 0)
    return select(history.c.ended_at).where(here).scalar_subquery()


def undo_of(row: Any) -> str | None:
    """What undoes the operation of a row, if it has an effect to undo."""
    if row.kind not in AWAITED_KINDS or row.meta is None:
        return None
    name: str | None = decode_json(row.meta).get("undo")
    return name


def _plan(connection: Connection, run_id: str) -> Sequence[str]:
    """What the run undoes or has undone, in that order; empty while nothing has made it."""
    here = and_(history.c.run == run_id, history.c.operation == UNDOING_OPERATION, history.c.voided == 0)
    meta = connection.scalar(select(history.c.meta).where(here))
    plan: Sequence[str] = () if meta is None else decode_json(meta)["plan"]
    return plan


def _undo_rows(connection: Connection, run_id: str, operations: Sequence[str]) -> Iterator[Any]:
    for some in batched(operations, AT_ONCE, strict=False):
        undos = [operation + UNDO_SUFFIX for operation in some]
        mine = and_(history.c.run == run_id, history.c.operation.in_(undos), history.c.voided == 0)
        yield from connection.execute(select(history).where(mine))


def _ended(row: Any) -> UndoView:
    return UndoView(
        name=row.name,
        status="undone" if row.status == "completed" else "failed",
        attempt=row.attempt,
        error=None if row.error is None else decode_record(row.error),
        ended_at=to_datetime(row.ended_at),
    )


def _under_way(connection: Connection, run_id: str, plan: Sequence[str]) -> str | None:
    """The operation that is being undone now, one at a time; None once nothing goes on."""
    if connection.scalar(select(runs.c.status).where(runs.c.id == run_id)) not in UNDER_WAY:
        return None
    for some in batched(plan, AT_ONCE, strict=False):
        done = {row.operation for row in _undo_rows(connection, run_id, some)}
        for operation in some:
            if operation + UNDO_SUFFIX not in done:
                return operation
    return None


def _running(connection: Connection, run_id: str, operation: str, name: str) -> UndoView:
    """With the attempts that have failed so far."""
    here = and_(attempts.c.run == run_id, attempts.c.operation == operation + UNDO_SUFFIX)
    last = connection.execute(select(attempts).where(here)).one_or_none()
    if last is None:
        return UndoView(name=name, status="running", attempt=1)
    return UndoView(name=name, status="running", attempt=last.attempt + 1, error=decode_record(last.error))
