"""The read side of runs: one query each, seeing only what its caller may see."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic_core import from_json
from sqlalchemy import ColumnElement, and_, cast, false, func, or_, select
from sqlalchemy.dialects.postgresql import JSONB

from app_svc.documents import HistoryDocument, RunDocument, describe_history, describe_run
from app_svc.page import Page, cut, decode_cursor, encode_cursor
from lib_events.clock import to_micros
from lib_events.database import Connection, DialectName
from lib_workflows.tables import history, runs, views

# Inputs and outputs may be megabytes each: a list leaves them where they are.
LISTED = [column for column in runs.columns if column.name not in ("input", "output")]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs; `owner` None means everybody's."""

    owner: str | None = None
    statuses: Sequence[str] = ()
    workflow: str | None = None
    tag: str | None = None  # "name:value", or "name" for any value
    text: str | None = None
    since: datetime | None = None
    parent: str | None = None

    def conditions(self, dialect: DialectName) -> list[ColumnElement[bool]]:
        """The filter in SQL."""
        found: list[ColumnElement[bool]] = []
        if self.owner is not None:
            found.append(runs.c.principal == self.owner)
        if self.statuses:
            found.append(runs.c.status.in_(self.statuses))
        if self.workflow is not None:
            found.append(runs.c.workflow == self.workflow)
        if self.tag is not None:
            found.append(_has_tag(self.tag, dialect))
        if self.text:
            columns = (runs.c.id, runs.c.workflow, runs.c.principal_name, runs.c.error)
            found.append(or_(*(column.icontains(self.text, autoescape=True) for column in columns)))
        if self.parent is not None:
            found.append(runs.c.parent == self.parent)
        if self.since is not None:
            found.append(runs.c.created_at >= to_micros(self.since))
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


def list_runs(connection: Connection, wanted: RunFilter, cursor: str | None, limit: int) -> Page[RunDocument]:
    """Runs that pass the filter, newest first."""
    query = select(*LISTED).where(*wanted.conditions(connection.dialect_name))
    after = decode_cursor(cursor, int, str)
    if after is not None:
        older = and_(runs.c.created_at == after[0], runs.c.id < after[1])
        query = query.where(or_(runs.c.created_at < after[0], older))
    query = query.order_by(runs.c.created_at.desc(), runs.c.id.desc()).limit(limit + 1)
    rows, last = cut(connection.execute(query).all(), limit)
    next_cursor = encode_cursor(last.created_at, last.id) if last is not None else None
    return Page(items=[describe_run(row) for row in rows], next_cursor=next_cursor)


def matching_ids(connection: Connection, wanted: RunFilter, limit: int) -> list[str]:
    """The ids of runs that pass the filter, oldest first, at most `limit`."""
    query = select(runs.c.id).where(*wanted.conditions(connection.dialect_name))
    return list(connection.scalars(query.order_by(runs.c.created_at, runs.c.id).limit(limit)))


def find_run(connection: Connection, run_id: str) -> RunDocument | None:
    """One run with everything there is about it."""
    row = connection.execute(select(runs).where(runs.c.id == run_id)).one_or_none()
    if row is None:
        return None
    seen = connection.execute(select(views.c.name, views.c.value).where(views.c.run == run_id)).all()
    return describe_run(row, whole=True, views={view.name: from_json(view.value) for view in seen})


def find_runs(connection: Connection, run_ids: Sequence[str]) -> list[RunDocument]:
    """The runs of these ids, in their order, as in a list."""
    found = {row.id: describe_run(row) for row in connection.execute(select(*LISTED).where(runs.c.id.in_(run_ids)))}
    return [found[run_id] for run_id in run_ids]


def find_owner(connection: Connection, run_id: str) -> tuple[str | None, str] | None:
    """Whose run it is, and its status; None when there is none."""
    row = connection.execute(select(runs.c.principal, runs.c.status).where(runs.c.id == run_id)).one_or_none()
    return None if row is None else (row.principal, row.status)


def find_start(connection: Connection, run_id: str) -> tuple[str, int]:
    """The correlation id of a run, and where in the event log it began."""
    columns = (runs.c.correlation_id, runs.c.look_back_position)
    row = connection.execute(select(*columns).where(runs.c.id == run_id)).one()
    return row.correlation_id, row.look_back_position


def find_view(connection: Connection, run_id: str, name: str) -> Any | None:
    """The row of one view of a run, or None."""
    return connection.execute(select(views).where(views.c.run == run_id, views.c.name == name)).one_or_none()


def list_history(connection: Connection, run_id: str, cursor: str | None, limit: int) -> Page[HistoryDocument]:
    """The history of a run in order; what a retry set aside is left out."""
    after = decode_cursor(cursor, int)
    query = select(history).where(history.c.run == run_id, history.c.voided == 0)
    if after is not None:
        query = query.where(history.c.position > after[0])
    rows, last = cut(connection.execute(query.order_by(history.c.position).limit(limit + 1)).all(), limit)
    next_cursor = encode_cursor(last.position) if last is not None else None
    return Page(items=[describe_history(row) for row in rows], next_cursor=next_cursor)
