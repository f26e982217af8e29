"""A run as JSON-able data: its history for `replay_history`, and all there is of it for an archive."""

from typing import Any

from sqlalchemy import func, literal, select

from lib_events.database import Connection
from lib_workflows.errors import RunNotFound
from lib_workflows.runs.record import RunRecord, load
from lib_workflows.tables import approvals, history, run_logs, runs, updates, views
from lib_workflows.values.codec import decode_json

ROW_BYTES = 200  # of the JSON of a row, beside its texts


def export_run(connection: Connection, run_id: str) -> dict[str, Any]:
    """A run and its history without what retries have set aside; raises `RunNotFound`."""
    loaded = load(connection, [run_id])
    if not loaded:
        raise RunNotFound(run_id)
    record, stored = loaded[0]
    run = {name: getattr(record, name) for name in RunRecord.__slots__}
    return {"run": run, "history": [row._asdict() for row in stored.history]}


def history_size(connection: Connection, run_id: str) -> int:
    """About how many bytes a run's history has."""
    texts = (history.c.input, history.c.output, history.c.error, history.c.meta)
    size = sum((func.coalesce(func.length(text), 0) for text in texts), literal(ROW_BYTES))
    return connection.scalar(select(func.coalesce(func.sum(size), 0)).where(history.c.run == run_id)) or 0


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
