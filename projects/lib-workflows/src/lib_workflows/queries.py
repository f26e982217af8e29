"""The read side: runs, histories, approvals and views, as plain rows with cursors; who may see what is the caller's."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json, to_json
from sqlalchemy import ColumnElement, Select, and_, func, or_, select

from lib_events.database import Connection
from lib_workflows.codec import decode_json
from lib_workflows.errors import ErrorRecord, WorkflowsError
from lib_workflows.failure import decode_record
from lib_workflows.tables import approvals, history, runs, views

PAGE = 50


class PageCursorInvalid(WorkflowsError, ValueError):
    """A page cursor is none that this list gave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run as it is read; times are microseconds since the epoch."""

    id: str
    workflow: str
    version: int
    queue: str
    priority: int
    status: str
    input: Any
    output: Any
    error: ErrorRecord | None
    principal: str | None
    principal_name: str | None
    tags: Mapping[str, str]
    correlation_id: str
    causation_id: str | None
    parent: str | None
    forked_from: str | None
    waiting_for: Sequence[Mapping[str, Any]]
    wake_at: int | None
    deadline_at: int | None
    created_at: int
    started_at: int | None
    ended_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """One row of a history as it is read."""

    position: int
    operation: str
    kind: str
    name: str
    status: str
    attempt: int
    started_at: int
    ended_at: int
    input: Any
    output: Any
    error: ErrorRecord | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalView:
    """An approval as it is read."""

    id: str
    run: str
    workflow: str
    name: str
    text: str
    to: str
    about: Mapping[str, Any] | None
    status: str
    asked_at: int
    due_at: int | None
    decided_at: int | None
    decided_by: str | None
    decided_by_name: str | None
    comment: str | None
    form: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Page[T]:
    """Some items of a list, newest first, and where the next ones begin."""

    items: Sequence[T]
    next_cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs to list; what is None does not narrow."""

    statuses: Sequence[str] = ()
    workflow: str | None = None
    tag: str | None = None  # "key" or "key=value"
    text: str | None = None  # in the id or the input
    since: int | None = None
    principal: str | None = None
    parent: str | None = None
    correlation_id: str | None = None


def list_runs(
    connection: Connection, narrow: RunFilter | None = None, cursor: str | None = None, limit: int = PAGE
) -> Page[RunView]:
    """List runs, newest first."""
    query = select(runs).where(*_run_conditions(narrow or RunFilter()))
    return _page(connection, query, (runs.c.created_at, runs.c.id), cursor, limit, _run)


def get_run(connection: Connection, run_id: str) -> RunView | None:
    """One run, or None."""
    row = connection.execute(select(runs).where(runs.c.id == run_id)).one_or_none()
    return None if row is None else _run(row)


def get_history(connection: Connection, run_id: str) -> list[HistoryEntry]:
    """The history of a run, in order, without what a retry has set aside."""
    mine = and_(history.c.run == run_id, history.c.voided == 0)
    return [_entry(row) for row in connection.execute(select(history).where(mine).order_by(history.c.position))]


def get_views(connection: Connection, run_id: str) -> dict[str, Any]:
    """Every view of a run, by name."""
    rows = connection.execute(select(views.c.name, views.c.value).where(views.c.run == run_id))
    return {row.name: decode_json(row.value) for row in rows}


def get_view(connection: Connection, run_id: str, name: str) -> Any:
    """One view of a run, or None."""
    return get_views(connection, run_id).get(name)


def list_approvals(
    connection: Connection,
    *,
    addressees: Sequence[str] | None = None,
    status: str | None = None,
    run: str | None = None,
    cursor: str | None = None,
    limit: int = PAGE,
) -> Page[ApprovalView]:
    """List approvals, newest first; `addressees` are those one may see ("user:<subject>", "role:<name>")."""
    query = select(approvals)
    if addressees is not None:
        query = query.where(approvals.c.addressee.in_(addressees))
    if status is not None:
        query = query.where(approvals.c.status == status)
    if run is not None:
        query = query.where(approvals.c.run == run)
    return _page(connection, query, (approvals.c.asked_at, approvals.c.id), cursor, limit, _approval)


def get_approval(connection: Connection, approval_id: str) -> ApprovalView | None:
    """One approval, or None."""
    row = connection.execute(select(approvals).where(approvals.c.id == approval_id)).one_or_none()
    return None if row is None else _approval(row)


def count_runs(connection: Connection, narrow: RunFilter | None = None) -> dict[str, int]:
    """How many runs are in each status."""
    query = select(runs.c.status, func.count().label("size")).where(*_run_conditions(narrow or RunFilter()))
    return {row.status: row.size for row in connection.execute(query.group_by(runs.c.status))}


def _run_conditions(narrow: RunFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if narrow.statuses:
        conditions.append(runs.c.status.in_(narrow.statuses))
    for column, wanted in (
        (runs.c.workflow, narrow.workflow),
        (runs.c.principal, narrow.principal),
        (runs.c.parent, narrow.parent),
        (runs.c.correlation_id, narrow.correlation_id),
    ):
        if wanted is not None:
            conditions.append(column == wanted)
    if narrow.since is not None:
        conditions.append(runs.c.created_at >= narrow.since)
    if narrow.tag is not None:
        conditions.append(runs.c.tags.contains(_tag_text(narrow.tag), autoescape=True))
    if narrow.text is not None:
        in_id = runs.c.id.contains(narrow.text, autoescape=True)
        conditions.append(or_(in_id, runs.c.input.contains(narrow.text, autoescape=True)))
    return conditions


def _tag_text(tag: str) -> str:
    """How a tag stands in the JSON of the tags."""
    key, separator, value = tag.partition("=")
    text = to_json({key: value}).decode()[1:-1]
    return text if separator else text[: -len('""')]


def _page[T](  # noqa: PLR0917 - the parts of a list
    connection: Connection,
    query: Select[Any],
    order: tuple[Any, Any],
    cursor: str | None,
    limit: int,
    make: Any,
) -> Page[T]:
    moment, identity = order
    if cursor is not None:
        at, last_id = _read_cursor(cursor)
        query = query.where(or_(moment < at, and_(moment == at, identity < last_id)))
    rows = connection.execute(query.order_by(moment.desc(), identity.desc()).limit(limit + 1)).all()
    last = rows[limit - 1] if len(rows) > limit else None
    next_cursor = _write_cursor(getattr(last, moment.name), last.id) if last is not None else None
    return Page([make(row) for row in rows[:limit]], next_cursor)


def _write_cursor(at: int, last_id: str) -> str:
    return base64.urlsafe_b64encode(to_json([at, last_id])).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[int, str]:
    try:
        at, last_id = from_json(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        return int(at), str(last_id)
    except (ValueError, TypeError) as error:
        raise PageCursorInvalid(
            f"cursor must be the next_cursor of the same list, got {cursor[:40]!r}; leave it out to begin"
        ) from error


def _json(text: str | None) -> Any:
    return None if text is None else decode_json(text)


def _run(row: Any) -> RunView:
    return RunView(
        id=row.id,
        workflow=row.workflow,
        version=row.version,
        queue=row.queue,
        priority=row.priority,
        status=row.status,
        input=_json(row.input),
        output=_json(row.output),
        error=decode_record(row.error) if row.error else None,
        principal=row.principal,
        principal_name=row.principal_name,
        tags=_json(row.tags) or {},
        correlation_id=row.correlation_id,
        causation_id=row.causation_id,
        parent=row.parent,
        forked_from=row.forked_from,
        waiting_for=_json(row.waiting_for) or [],
        wake_at=row.wake_at,
        deadline_at=row.deadline_at,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
    )


def _entry(row: Any) -> HistoryEntry:
    return HistoryEntry(
        position=row.position,
        operation=row.operation,
        kind=row.kind,
        name=row.name,
        status=row.status,
        attempt=row.attempt,
        started_at=row.started_at,
        ended_at=row.ended_at,
        input=_json(row.input),
        output=_json(row.output),
        error=decode_record(row.error) if row.error else None,
    )


def _approval(row: Any) -> ApprovalView:
    return ApprovalView(
        id=row.id,
        run=row.run,
        workflow=row.workflow,
        name=row.name,
        text=row.text,
        to=row.addressee,
        about=_json(row.about),
        status=row.status,
        asked_at=row.asked_at,
        due_at=row.due_at,
        decided_at=row.decided_at,
        decided_by=row.decided_by,
        decided_by_name=row.decided_by_name,
        comment=row.comment,
        form=_json(row.form),
    )
