"""The read side: runs, histories, views and approvals as typed values, in pages; who may see what is the caller's.

Each function takes a connection, so that several answers can come from one snapshot. Lists leave inputs, outputs
and views out, because each of them may be megabytes: `get_run` has them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, cast, false, func, or_, select
from sqlalchemy.dialects.postgresql import JSONB

from lib_events.clock import SystemClock, to_datetime, to_micros
from lib_events.database import Connection, DialectName
from lib_workflows.authoring.messages import Principal
from lib_workflows.errors import ErrorRecord, FilterInvalid
from lib_workflows.paging import PAGE, Order, Page, page_of
from lib_workflows.queueing.slots import needs_slot_of_limited
from lib_workflows.reading.undo_views import UndoView, undo_views, undoing_since
from lib_workflows.runs.record import RunRecord
from lib_workflows.runs.state import STATUSES, UNDER_WAY
from lib_workflows.tables import approvals, history, run_logs, runs, views
from lib_workflows.values.codec import decode_json
from lib_workflows.values.failure import decode_record

BIG = ("input", "output")
UNDOING_AT = undoing_since().label("undoing_at")
IS_HELD = needs_slot_of_limited().label("is_held")
BESIDE = (UNDOING_AT, IS_HELD)
LISTED = (*(column for column in runs.columns if column.name not in BIG), *BESIDE)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs to list; what is None or empty does not narrow. Raises `FilterInvalid`."""

    statuses: Sequence[str] = ()
    workflow: str | None = None
    tags: Sequence[str] = ()  # all of them: "name:value", or "name" for any value
    text: str | None = None  # in id, workflow, the person's name or the error
    since: datetime | None = None
    principal: str | None = None
    parent: str | None = None

    def __post_init__(self) -> None:
        """Refuse a status that is none: it would find nothing, and nobody would know why."""
        if isinstance(self.statuses, str) or not set(self.statuses) <= set(STATUSES):
            raise FilterInvalid(f"statuses must be a list of some of {', '.join(STATUSES)}, got {self.statuses!r:.100}")


def list_runs(
    connection: Connection, narrow: RunFilter | None = None, cursor: str | None = None, limit: int = PAGE
) -> Page[RunView]:
    """List runs, newest first."""
    query = select(*LISTED).where(*_conditions(narrow, connection.dialect_name))
    return page_of(connection, query, NEWEST_RUN, cursor, limit)


def list_run_ids(connection: Connection, narrow: RunFilter | None = None, limit: int = PAGE) -> list[str]:
    """The ids of at most `limit` runs, oldest first."""
    query = select(runs.c.id).where(*_conditions(narrow, connection.dialect_name))
    return list(connection.scalars(query.order_by(runs.c.created_at, runs.c.id).limit(limit)))


def matches(connection: Connection, run_id: str, narrow: RunFilter) -> bool:
    """Whether a run is one of those that a filter means."""
    query = select(runs.c.id).where(runs.c.id == run_id, *_conditions(narrow, connection.dialect_name))
    return connection.scalar(query) is not None


def begun_again_by_parents(connection: Connection, run_ids: Sequence[str]) -> dict[str, str]:
    """Those of the runs, each with its parent, whose parent is one of them, too, and starts another when it is retried.

    One that is parked does not: it goes on with the child that it has.
    """
    parent = runs.alias()
    both = select(runs.c.id, runs.c.parent).join(parent, parent.c.id == runs.c.parent)
    both = both.where(runs.c.id.in_(run_ids), runs.c.parent.in_(run_ids), parent.c.status != "nondeterministic")
    return {row.id: row.parent for row in connection.execute(both)}


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
    page = page_of(connection, _history_of(run_id), HISTORY_ORDER, cursor, limit)
    return Page(_entries(connection, run_id, page.items), page.next_cursor)


def list_logs(
    connection: Connection, run_id: str, cursor: str | None = None, limit: int = PAGE, *, after: int = 0
) -> Page[LogLine]:
    """What a run logged, in order, from behind the line numbered `after`."""
    query = select(run_logs).where(run_logs.c.run == run_id, run_logs.c.number > after)
    return page_of(connection, query, LOG_ORDER, cursor, limit)


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
    return page_of(connection, query, NEWEST_APPROVAL, cursor, limit)


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
    found += [_has_tag(tag, dialect) for tag in narrow.tags]
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


NEWEST_RUN = Order((runs.c.created_at, runs.c.id), _run)
NEWEST_APPROVAL = Order((approvals.c.asked_at, approvals.c.id), _approval)
HISTORY_ORDER = Order((history.c.position,), lambda row: row, is_falling=False)
LOG_ORDER = Order((run_logs.c.number,), _line, is_falling=False)


def _json(text: str | None) -> Any:
    return None if text is None else decode_json(text)


def _error(text: str | None) -> ErrorRecord | None:
    return None if text is None else decode_record(text)


def _principal(subject: str | None, username: str | None) -> Principal | None:
    return None if subject is None else Principal(subject, username)


def _moment(micros: int | None) -> datetime | None:
    return None if micros is None else to_datetime(micros)
