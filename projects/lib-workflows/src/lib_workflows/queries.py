"""The read side: runs, histories, views and approvals as typed values, in pages; who may see what is the caller's.

Each function takes a connection, so that several answers can come from one snapshot. Lists leave inputs, outputs
and views out, because each of them may be megabytes: `get_run` has them.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic_core import from_json, to_json
from sqlalchemy import Column, ColumnElement, Select, and_, cast, false, func, or_, select, tuple_
from sqlalchemy.dialects.postgresql import JSONB

from lib_events.clock import SystemClock, to_datetime, to_micros
from lib_events.database import Connection, DialectName
from lib_workflows.codec import decode_json
from lib_workflows.errors import ErrorRecord, WorkflowsError
from lib_workflows.failure import decode_record
from lib_workflows.messages import Principal
from lib_workflows.queue_slots import needs_slot_of_limited
from lib_workflows.run_record import RunRecord
from lib_workflows.run_state import UNDER_WAY
from lib_workflows.tables import approvals, history, run_logs, runs, views
from lib_workflows.undoing import UndoView, undo_views, undoing_since

PAGE = 50
INTEGER_LIMIT = 2**63  # of the databases' integers

BIG = ("input", "output")
UNDOING_AT = undoing_since().label("undoing_at")
IS_HELD = needs_slot_of_limited().label("is_held")
BESIDE = (UNDOING_AT, IS_HELD)
LISTED = (*(column for column in runs.columns if column.name not in BIG), *BESIDE)


class PageCursorInvalid(WorkflowsError, ValueError):
    """A page cursor is none that this list gave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run as it is read."""

    id: str
    workflow: str
    version: int
    queue: str
    priority: int
    status: str
    input: Any = None
    output: Any = None
    views: Mapping[str, Any] = field(default_factory=dict)
    error: ErrorRecord | None
    principal: Principal | None
    tags: Mapping[str, str]
    correlation_id: str
    causation_id: str | None
    parent: str | None
    forked_from: str | None
    look_back_position: int  # where in the event log its story begins, or before
    waiting_for: Sequence[Mapping[str, Any]]
    deadline_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    undoing_since: datetime | None  # while it undoes what it did


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """One row of a history as it is read; `undo` is None where there is nothing to undo."""

    position: int
    operation: str
    kind: str
    name: str
    status: str
    attempt: int
    started_at: datetime
    ended_at: datetime
    input: Any
    output: Any
    error: ErrorRecord | None
    undo: UndoView | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One line that a run logged; `operation` is None for the workflow itself."""

    number: int
    at: datetime
    level: str
    logger: str
    message: str
    operation: str | None
    attempt: int | None


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
    asked_at: datetime
    due_at: datetime | None
    decided_at: datetime | None
    decided_by: Principal | None
    comment: str | None
    form: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Page[T]:
    """Some items of a list, and where the next ones begin; None on the last page."""

    items: Sequence[T]
    next_cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs to list; what is None or empty does not narrow."""

    statuses: Sequence[str] = ()
    workflow: str | None = None
    tag: str | None = None  # "name:value", or "name" for any value
    text: str | None = None  # in id, workflow, the person's name or the error
    since: datetime | None = None
    principal: str | None = None
    parent: str | None = None


def list_runs(
    connection: Connection, narrow: RunFilter | None = None, cursor: str | None = None, limit: int = PAGE
) -> Page[RunView]:
    """List runs, newest first."""
    query = select(*LISTED).where(*_conditions(narrow, connection.dialect_name))
    return _page(connection, query, NEWEST_RUN, cursor, limit)


def list_run_ids(connection: Connection, narrow: RunFilter | None = None, limit: int = PAGE) -> list[str]:
    """The ids of at most `limit` runs, oldest first."""
    query = select(runs.c.id).where(*_conditions(narrow, connection.dialect_name))
    return list(connection.scalars(query.order_by(runs.c.created_at, runs.c.id).limit(limit)))


def matches(connection: Connection, run_id: str, narrow: RunFilter) -> bool:
    """Whether a run is one of those that a filter means."""
    query = select(runs.c.id).where(runs.c.id == run_id, *_conditions(narrow, connection.dialect_name))
    return connection.scalar(query) is not None


def get_runs(connection: Connection, run_ids: Sequence[str]) -> dict[str, RunView]:
    """The runs of these ids, as in a list; an id without a run is left out."""
    return {row.id: _run(row) for row in connection.execute(select(*LISTED).where(runs.c.id.in_(run_ids)))}


def get_run(connection: Connection, run_id: str) -> RunView | None:
    """One run with everything there is about it, or None."""
    row = connection.execute(select(runs, *BESIDE).where(runs.c.id == run_id)).one_or_none()
    if row is None:
        return None
    return _run(row, input=_json(row.input), output=_json(row.output), views=get_views(connection, run_id))


def view_of_new(run: RunRecord) -> RunView:
    """A run as it begins, as in a list: no database need be asked for it."""
    return RunView(
        id=run.id,
        workflow=run.workflow,
        version=run.version,
        queue=run.queue,
        priority=run.priority,
        status=run.status,
        error=None,
        principal=_principal(run.principal, run.principal_name),
        tags=_json(run.tags) or {},
        correlation_id=run.correlation_id,
        causation_id=run.causation_id,
        parent=run.parent,
        forked_from=None,
        look_back_position=0,
        waiting_for=[],
        deadline_at=_moment(run.deadline_at),
        created_at=to_datetime(run.created_at),
        started_at=_moment(run.started_at),
        ended_at=None,
        undoing_since=None,
    )


def count_runs(connection: Connection, narrow: RunFilter | None = None) -> dict[str, int]:
    """How many runs are in each status."""
    query = select(runs.c.status, func.count().label("size")).where(*_conditions(narrow, connection.dialect_name))
    return {row.status: row.size for row in connection.execute(query.group_by(runs.c.status))}


def get_history(connection: Connection, run_id: str) -> list[HistoryEntry]:
    """The history of a run, in order, without what a retry has set aside."""
    rows = connection.execute(_history_of(run_id).order_by(history.c.position)).all()
    return _entries(connection, run_id, rows)


def list_history(
    connection: Connection, run_id: str, cursor: str | None = None, limit: int = PAGE
) -> Page[HistoryEntry]:
    """The same in pages."""
    page = _page(connection, _history_of(run_id), HISTORY_ORDER, cursor, limit)
    return Page(_entries(connection, run_id, page.items), page.next_cursor)


def list_logs(
    connection: Connection, run_id: str, cursor: str | None = None, limit: int = PAGE, *, after: int = 0
) -> Page[LogLine]:
    """What a run logged, in order, from behind the line numbered `after`."""
    query = select(run_logs).where(run_logs.c.run == run_id, run_logs.c.number > after)
    return _page(connection, query, LOG_ORDER, cursor, limit)


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
    statuses: Sequence[str] = (),
    run: str | None = None,
    cursor: str | None = None,
    limit: int = PAGE,
) -> Page[ApprovalView]:
    """List approvals, newest first; `addressees` are those one may see ("user:<subject>", "role:<name>")."""
    query = select(approvals)
    if addressees is not None:
        query = query.where(approvals.c.addressee.in_(addressees))
    if statuses:
        query = query.where(approvals.c.status.in_(statuses))
    if run is not None:
        query = query.where(approvals.c.run == run)
    return _page(connection, query, NEWEST_APPROVAL, cursor, limit)


def get_approval(connection: Connection, approval_id: str) -> ApprovalView | None:
    """One approval, or None."""
    row = connection.execute(select(approvals).where(approvals.c.id == approval_id)).one_or_none()
    return None if row is None else _approval(row)


# Narrowing


def _conditions(narrow: RunFilter | None, dialect: DialectName) -> list[ColumnElement[bool]]:
    if narrow is None:
        return []
    equal = ((runs.c.workflow, narrow.workflow), (runs.c.principal, narrow.principal), (runs.c.parent, narrow.parent))
    found: list[ColumnElement[bool]] = [column == wanted for column, wanted in equal if wanted is not None]
    if narrow.statuses:
        found.append(runs.c.status.in_(narrow.statuses))
    if narrow.tag is not None:
        found.append(_has_tag(narrow.tag, dialect))
    if narrow.text:
        columns = (runs.c.id, runs.c.workflow, runs.c.principal_name, runs.c.error)
        found.append(or_(*(column.icontains(narrow.text, autoescape=True) for column in columns)))
    if narrow.since is not None:
        found.append(runs.c.created_at >= to_micros(narrow.since))
    return found


def _has_tag(tag: str, dialect: DialectName) -> ColumnElement[bool]:
    name, has_value, value = tag.partition(":")
    if '"' in name:
        return false()  # no tag is called that, and a JSON path has no escape for it
    if dialect == "postgresql":
        found: ColumnElement[Any] = cast(runs.c.tags, JSONB)[name].astext
    else:
        found = func.json_extract(runs.c.tags, f'$."{name}"')
    return found == value if has_value else found.is_not(None)


def _history_of(run_id: str) -> Select[Any]:
    return select(history).where(and_(history.c.run == run_id, history.c.voided == 0))


# Pages: a cursor names the last item of a page, so that items that arrive meanwhile shift nothing.


def encode_cursor(*parts: int | str) -> str:
    """Make the cursor of an item; only `decode_cursor` reads it."""
    return base64.urlsafe_b64encode(to_json(parts)).rstrip(b"=").decode()


def decode_cursor(text: str | None, *kinds: type) -> tuple[Any, ...] | None:
    """Read a cursor made of values of `kinds`; raises `PageCursorInvalid`."""
    if text is None:
        return None
    try:
        parts = from_json(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except ValueError:
        parts = None
    if not isinstance(parts, list) or [type(part) for part in parts] != list(kinds) or not all(map(_fits, parts)):
        raise PageCursorInvalid(
            f"cursor must be the next_cursor of an earlier page of the same list, got {text[:40]!r}; "
            "leave it out to begin"
        )
    return tuple(parts)


def _fits(part: int | str) -> bool:
    """Whether a database can compare with it: PostgreSQL stores no NUL character."""
    return "\0" not in part if isinstance(part, str) else abs(part) < INTEGER_LIMIT


def cut[T](rows: Sequence[T], limit: int) -> tuple[Sequence[T], T | None]:
    """Split rows that were read up to `limit + 1`: the page, and its last row when more follow."""
    page = rows[:limit]
    return page, page[-1] if len(rows) > limit else None


@dataclass(frozen=True, slots=True)
class _Order[T]:
    """The columns a list goes by, upwards or down, and what its rows become."""

    columns: Sequence[Column[Any]]
    make: Callable[[Any], T]
    is_falling: bool = True


def _page[T](connection: Connection, query: Select[Any], order: _Order[T], cursor: str | None, limit: int) -> Page[T]:
    place = tuple_(*order.columns)
    last = decode_cursor(cursor, *(column.type.python_type for column in order.columns))
    if last is not None:
        query = query.where(place < last if order.is_falling else place > last)
    query = query.order_by(*(column.desc() if order.is_falling else column for column in order.columns))
    rows, end = cut(connection.execute(query.limit(limit + 1)).all(), limit)
    next_cursor = None if end is None else encode_cursor(*(getattr(end, column.name) for column in order.columns))
    return Page([order.make(row) for row in rows], next_cursor)


# Rows


def _run(row: Any, **big: Any) -> RunView:
    return RunView(
        id=row.id,
        workflow=row.workflow,
        version=row.version,
        queue=row.queue,
        priority=row.priority,
        status=row.status,
        error=_error(row.error),
        principal=_principal(row.principal, row.principal_name),
        tags=_json(row.tags) or {},
        correlation_id=row.correlation_id,
        causation_id=row.causation_id,
        parent=row.parent,
        forked_from=row.forked_from,
        look_back_position=row.look_back_position,
        waiting_for=[*_what_it_lacks(row), *(_json(row.waiting_for) or [])],
        deadline_at=_moment(row.deadline_at),
        created_at=to_datetime(row.created_at),
        started_at=_moment(row.started_at),
        ended_at=_moment(row.ended_at),
        undoing_since=_moment(row.undoing_at) if row.status in UNDER_WAY else None,
        **big,
    )


def _what_it_lacks(row: Any) -> list[Mapping[str, Any]]:
    """What a run waits for that is due and in nobody's memory: a moment, a slot, or somebody who can take it."""
    is_due = row.owner is None and row.wake_at is not None and row.wake_at <= SystemClock().micros()
    if not is_due or row.ended_at is not None or row.status == "nondeterministic":
        return []
    if row.is_held:
        return [{"kind": "slot", "name": f"of queue {row.queue}", "until": None, "count": 1}]
    name = f"that holds {row.workflow} version {row.version} and serves queue {row.queue}"
    return [{"kind": "worker", "name": name, "until": None, "count": 1}]


def _entries(connection: Connection, run_id: str, rows: Sequence[Any]) -> list[HistoryEntry]:
    undos = undo_views(connection, run_id, rows)
    return [_entry(row, undos.get(row.operation)) for row in rows]


def _entry(row: Any, undo: UndoView | None) -> HistoryEntry:
    return HistoryEntry(
        position=row.position,
        operation=row.operation,
        kind=row.kind,
        name=row.name,
        status=row.status,
        attempt=row.attempt,
        started_at=to_datetime(row.started_at),
        ended_at=to_datetime(row.ended_at),
        input=_json(row.input),
        output=_json(row.output),
        error=_error(row.error),
        undo=undo,
    )


def _line(row: Any) -> LogLine:
    return LogLine(
        number=row.number,
        at=to_datetime(row.at),
        level=row.level,
        logger=row.logger,
        message=row.message,
        operation=row.operation,
        attempt=row.attempt,
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
        asked_at=to_datetime(row.asked_at),
        due_at=_moment(row.due_at),
        decided_at=_moment(row.decided_at),
        decided_by=_principal(row.decided_by, row.decided_by_name),
        comment=row.comment,
        form=_json(row.form),
    )


NEWEST_RUN = _Order((runs.c.created_at, runs.c.id), _run)
NEWEST_APPROVAL = _Order((approvals.c.asked_at, approvals.c.id), _approval)
HISTORY_ORDER = _Order((history.c.position,), lambda row: row, is_falling=False)
LOG_ORDER = _Order((run_logs.c.number,), _line, is_falling=False)


def _json(text: str | None) -> Any:
    return None if text is None else decode_json(text)


def _error(text: str | None) -> ErrorRecord | None:
    return None if text is None else decode_record(text)


def _principal(subject: str | None, username: str | None) -> Principal | None:
    return None if subject is None else Principal(subject, username)


def _moment(micros: int | None) -> datetime | None:
    return None if micros is None else to_datetime(micros)
