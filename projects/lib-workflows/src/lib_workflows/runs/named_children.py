"""Children whose ids their parents have chosen: such an id means one run, in every life of that parent.

Whether somebody else has it must be asked, so a child like this costs a transaction of its own; any other is a row in
the commit of what led to it.
"""

from typing import Any

from sqlalchemy import and_, exists, func, select, update

from lib_events.database import Connection
from lib_workflows.errors import RunConflict, RunIdTaken
from lib_workflows.runs.commands import StartRequest, lock_run, start
from lib_workflows.runs.record import UNDO_SUFFIX, Child
from lib_workflows.runs.rewind import redo, retry
from lib_workflows.tables import history, runs

CHILD = [runs.c[name] for name in Child._fields]


def begin_child(connection: Connection, request: StartRequest, now: int) -> Child:
    """Queue the child, or go on with what it was in an earlier life of its parent; raises `RunIdTaken`."""
    try:
        run_id, is_new = start(connection, request, now)
    except RunConflict as conflict:
        raise RunIdTaken(conflict.run_id) from conflict
    if not is_new:
        _go_on(connection, lock_run(connection, run_id), request, now)
    return Child(*tuple(connection.execute(select(*CHILD).where(runs.c.id == run_id)).one()))


def _go_on(connection: Connection, child: Any, request: StartRequest, now: int) -> None:
    """Let a run that there is be the child, as far as that has not come to what its parent wants of it."""
    place = (request.parent, request.parent_life, request.parent_operation)
    if (child.parent, child.parent_life, child.parent_operation) == place:
        return  # it was started here, and nobody has heard of it
    if child.parent != request.parent or _is_in_use(connection, child, request):
        raise RunIdTaken(child.id)
    if child.status in ("failed", "cancelled"):
        retry(connection, child.id, now)
    elif child.status == "completed" and _was_undone(connection, child):
        redo(connection, child.id, now)
    values: dict[str, Any] = {"parent_life": request.parent_life, "parent_operation": request.parent_operation}
    if request.deadline_at is not None:
        values |= {"deadline_at": request.deadline_at, "deadline_micros": None}
    connection.execute(update(runs).where(runs.c.id == child.id).values(**values))


def _is_in_use(connection: Connection, child: Any, request: StartRequest) -> bool:
    """Whether another operation of the parent has it: one of this life, or one that its retry has kept."""
    if child.parent_life == request.parent_life:
        return True
    kept = and_(_of_operation(child, child.parent_operation), history.c.voided == 0)
    return bool(connection.scalar(select(exists().where(kept))))


def _was_undone(connection: Connection, child: Any) -> bool:
    """Whether the parent has undone it, or tried to, before it was retried."""
    of_child = _of_operation(child, child.parent_operation)
    last = select(func.max(history.c.voided)).where(of_child).scalar_subquery()
    undo = and_(_of_operation(child, child.parent_operation + UNDO_SUFFIX), history.c.voided == last)
    return bool(connection.scalar(select(exists().where(undo))))


def _of_operation(child: Any, operation: str) -> Any:
    return and_(history.c.run == child.parent, history.c.operation == operation)
