"""A run as JSON-able data: its history for `replay_history`, and all there is of it for an archive."""

from typing import Any

from sqlalchemy import select

from lib_events.database import Connection
from lib_workflows.errors import RunNotFound
from lib_workflows.runs.record import RunRecord, load
from lib_workflows.tables import approvals, run_logs, runs, updates, views
from lib_workflows.values.codec import decode_json


def export_run(connection: Connection, run_id: str) -> dict[str, Any]:
    """A run and its history without what retries have set aside; raises `RunNotFound`."""
    loaded = load(connection, [run_id])
    if not loaded:
        raise RunNotFound(run_id)
    record, stored = loaded[0]
    run = {name: getattr(record, name) for name in RunRecord.__slots__}
    return {"run": run, "history": [row._asdict() for row in stored.history]}


def export_whole_run(connection: Connection, run_id: str) -> dict[str, Any]:
    """The same, with its end, views, approvals, updates and log; raises `RunNotFound`."""
    return export_run(connection, run_id) | {
        "ended_at": connection.scalar(select(runs.c.ended_at).where(runs.c.id == run_id)),
        "views": {
            row.name: decode_json(row.value) for row in connection.execute(select(views).where(views.c.run == run_id))
        },
        "approvals": _rows(connection, approvals, run_id),
        "updates": _rows(connection, updates, run_id),
        "logs": _rows(connection, run_logs, run_id),
    }


def _rows(connection: Connection, table: Any, run_id: str) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(select(table).where(table.c.run == run_id)).mappings()]
