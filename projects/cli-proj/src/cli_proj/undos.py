"""How far the undos of a run are, in a person's words; pure."""

from collections.abc import Mapping, Sequence
from typing import Any

SIGN = "↶"
# How each state of an undo is said beside its operation, and in which colour; what nothing asks for is only marked.
WORDS = {
    "declared": (SIGN, "dim"),
    "pending": (f"{SIGN} to undo", "yellow"),
    "running": (f"{SIGN} undoing", "magenta"),
    "undone": (f"{SIGN} undone", "magenta"),
    "failed": (f"{SIGN} not undone", "red"),
}

type Undo = Mapping[str, Any]

STATUS_OF_STEP_EVENT = {
    "evs.step.started": "running",
    "evs.step.retried": "running",
    "evs.step.completed": "undone",
    "evs.step.failed": "failed",
}
UNDO_SUFFIX = "/undo"


def undo_words(undo: Undo | None) -> tuple[str, str]:
    """What is said of an operation's undo, and its colour; nothing of one that has none."""
    return WORDS.get(undo["status"], ("", "")) if undo else ("", "")


def undo_told(known: Undo | None, event_type: str, data: Mapping[str, Any]) -> Undo:
    """What an event about an undo makes of it."""
    status = STATUS_OF_STEP_EVENT[event_type]
    return dict(known or {}) | {
        "name": data["name"],
        "status": status,
        "attempt": data["attempt"],
        "error": data.get("error"),
    }


def describe_undos(undos: Sequence[Undo]) -> str:
    """How far a run that undoes what it did is: `1 of 3 undone, refund under way (attempt 2: no answer), 1 to come`."""
    asked = [undo for undo in undos if undo["status"] != "declared"]
    if not asked:
        return ""
    by_status = {status: [undo for undo in asked if undo["status"] == status] for status in WORDS}
    parts = [f"{len(by_status['undone'])} of {len(asked)} undone"]
    parts += [f"{undo['name']} under way{_attempts(undo)}" for undo in by_status["running"]]
    parts += [f"{len(by_status['pending'])} to come"] if by_status["pending"] else []
    parts += [f"{undo['name']} failed{_because(undo)}" for undo in by_status["failed"]]
    return ", ".join(parts)


def _attempts(undo: Undo) -> str:
    error = undo.get("error")
    return f" (attempt {undo['attempt']}: {error['message']})" if error else ""


def _because(undo: Undo) -> str:
    error = undo.get("error")
    return f" ({error['message']})" if error else ""
