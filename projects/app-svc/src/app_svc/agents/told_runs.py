"""Runs as agents are told of them: what a model needs to go on, in few words, and nothing without an end."""

from typing import Any, Final

from app_svc.agents.tool import shortened
from app_svc.documents import ApprovalDocument, ErrorDocument, HistoryDocument, RunDocument
from lib_workflows.runs.state import ENDED

MESSAGE_CHARACTERS: Final = 2_000
MESSAGE_OF_STEP_CHARACTERS: Final = 500  # there may be fifty of them
MOST_WAITS: Final = 10


def brief(run: RunDocument) -> dict[str, Any]:
    """A run in a list."""
    found = {
        "run": run.id,
        "workflow": run.workflow,
        "status": run.status,
        "started_by": None if run.principal is None else run.principal.username or run.principal.subject,
        "created_at": run.created_at,
        "ended_at": run.ended_at,
        "error": _error(run.error),
    }
    return _present(found)


def whole(run: RunDocument) -> dict[str, Any]:
    """A run by itself, with its input, its result and what it waits for."""
    more = {
        "version": run.version,
        "tags": run.tags or None,
        "input": shortened(run.input),
        "result": shortened(run.output),
        "views": shortened(run.views) if run.views else None,
        "progress": None if run.progress is None else run.progress.model_dump(),
        "waiting_for": _waits(run),
        "undoing_since": run.undoing_since,
        "next": _next(run),
    }
    return brief(run) | _present(more)


def result(run: RunDocument) -> dict[str, Any]:
    """What came of a run that has completed; under another name where it had to be cut: it is no such value then."""
    told = shortened(run.output)
    return {"result": told} if told is run.output else {"result_cut": told}


def step(entry: HistoryDocument) -> dict[str, Any]:
    """One operation of a run."""
    found = {
        "operation": entry.operation,
        "kind": entry.kind,
        "name": entry.name,
        "status": entry.status,
        "attempt": entry.attempt,
        "started_at": entry.started_at,
        "ended_at": entry.ended_at,
        "error": _error(entry.error, MESSAGE_OF_STEP_CHARACTERS),
        "undo": None if entry.undo is None else entry.undo.status,
    }
    return _present(found)


def approval(asked: ApprovalDocument) -> dict[str, Any]:
    """A question to a person."""
    found = asked.model_dump(exclude={"id", "about", "decided_by"}) | {
        "approval": asked.id,
        "decided_by": None if asked.decided_by is None else asked.decided_by.username or asked.decided_by.subject,
        "about": shortened(asked.about, MESSAGE_CHARACTERS),
        "text": shortened(asked.text, MESSAGE_CHARACTERS),
    }
    return _present(found)


def _error(error: ErrorDocument | None, limit: int = MESSAGE_CHARACTERS) -> dict[str, str] | None:
    """Without the stack: it tells of our files, and a model makes nothing of it."""
    return None if error is None else {"type": error.type, "message": error.message[:limit]}


def _waits(run: RunDocument) -> Any:
    waits = run.waiting_for[:MOST_WAITS]
    more = len(run.waiting_for) - len(waits)
    return shortened([*waits, *([{"more": more}] if more else [])]) if waits else None


def _next(run: RunDocument) -> str | None:
    """What to do about a run that goes on."""
    if run.status in ENDED:
        return None
    return f'The run goes on. Call wait_for_run with {{"run": "{run.id}"}} for its result, show_run for how far it is.'


def _present(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value is not None}
