"""How much of the database each workflow takes: counted when somebody asks, beside the writer, never in passing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Column, Table, Text, func, select

from lib_events.database import Connection
from lib_workflows.keeping.pruning import PARTS, size_of
from lib_workflows.tables import runs

TABLES = (runs, *(table for table, _, _ in PARTS))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowSize:
    """The runs of a workflow, of all versions, by status, and what they and everything under them take.

    `bytes` are those of all texts (payloads, names, errors) as they are stored; indexes, numbers, the events of the
    log and what a page wastes are not among them.
    """

    workflow: str
    runs: Mapping[str, int] = field(default_factory=dict)
    rows: int = 0
    bytes: int = 0


def workflow_sizes(connection: Connection, workflow: str | None = None) -> list[WorkflowSize]:
    """The size of each workflow that has runs, or of one; this reads every row it counts."""
    counts: dict[str, dict[str, int]] = {}
    rows: dict[str, int] = {}
    sizes: dict[str, int] = {}
    by_status = select(runs.c.workflow, runs.c.status, func.count().label("number"))
    for found in connection.execute(_narrow(by_status, workflow).group_by(runs.c.workflow, runs.c.status)):
        counts.setdefault(found.workflow, {})[found.status] = found.number
    for table in TABLES:
        for name, count, size in map(tuple, connection.execute(_size_query(connection, table, workflow))):
            rows[name] = rows.get(name, 0) + count
            sizes[name] = sizes.get(name, 0) + int(size)
    return [
        WorkflowSize(workflow=name, runs=counts[name], rows=rows[name], bytes=sizes[name]) for name in sorted(counts)
    ]


def _size_query(connection: Connection, table: Table, workflow: str | None) -> Any:
    texts: list[Column[Any]] = [column for column in table.columns if isinstance(column.type, Text)]
    total = func.sum(size_of(connection.dialect_name, texts))
    query = select(runs.c.workflow, func.count(), total).group_by(runs.c.workflow)
    if table is not runs:
        query = query.select_from(table).join(runs, runs.c.id == table.c.run)
    return _narrow(query, workflow)


def _narrow(query: Any, workflow: str | None) -> Any:
    return query if workflow is None else query.where(runs.c.workflow == workflow)
