"""What a run has done so far: built from its history, kept current by its events; pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cli_proj import moments
from cli_proj.undos import UNDO_SUFFIX, Undo, undo_told

ENDED = frozenset(("completed", "failed", "cancelled", "nondeterministic", "continued"))
STATUS_OF_STEP_EVENT = {
    "evs.step.started": "running",
    "evs.step.completed": "completed",
    "evs.step.failed": "failed",
    "evs.step.retried": "running",
}
STATUS_OF_RUN_EVENT = {
    "evs.run.queued": "queued",
    "evs.run.started": "running",
    "evs.run.resumed": "running",
    "evs.run.waiting": "waiting",
    "evs.run.completed": "completed",
    "evs.run.failed": "failed",
    "evs.run.cancelled": "cancelled",
    "evs.run.nondeterministic": "nondeterministic",
}
RUN_UNDOING = "evs.run.undoing"
RUN_ENDED = frozenset(f"evs.run.{status}" for status in ENDED)
PROGRESSED = "evs.run.progressed"


@dataclass(slots=True)
class Operation:
    """One thing a run does: a bar of the waterfall."""

    key: str
    kind: str
    name: str
    status: str
    attempt: int = 1
    started_at: str | None = None
    ended_at: str | None = None
    error: str | None = None
    undo: Undo | None = None  # what undoes it, and how far that is

    @property
    def label(self) -> str:
        """How it is called in a line."""
        return operation_label(self.kind, self.name)


@dataclass(slots=True)
class Timeline:
    """A run and its operations."""

    run: dict[str, Any]
    operations: dict[str, Operation] = field(default_factory=dict)
    as_of: str | None = None  # when the last thing happened that a snapshot knew of

    @property
    def status(self) -> str:
        """The run's status."""
        return str(self.run["status"])

    @property
    def in_order(self) -> list[Operation]:
        """The operations in the order in which they began."""
        return sorted(self.operations.values(), key=lambda operation: operation.started_at or "")

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.status in ENDED

    def take_snapshot(self, run: Mapping[str, Any], history: Iterable[Mapping[str, Any]]) -> None:
        """Bring everything to what the service says now."""
        progress = run.get("progress") or self.run.get("progress")
        self.run = dict(run) | {"progress": progress}
        for entry in history:
            self._put(entry)
            if happened_before(self.as_of, entry["ended_at"]):
                self.as_of = entry["ended_at"]

    def apply(self, event: Mapping[str, Any]) -> bool:
        """Take in one CloudEvent; returns whether it changed anything."""
        kind, data = str(event.get("type")), event.get("data") or {}
        if kind in STATUS_OF_STEP_EVENT:
            return self._apply_step(kind, data, event.get("time"))
        if kind == PROGRESSED:
            self.run["progress"] = data.get("progress") or {
                "fraction": data.get("fraction"),
                "text": data.get("text"),
            }
            return True
        if kind in STATUS_OF_RUN_EVENT:
            return self._apply_status(STATUS_OF_RUN_EVENT[kind], data, event.get("time"))
        return kind.startswith("evs.approval.")

    def _apply_status(self, status: str, data: Mapping[str, Any], time: str | None) -> bool:
        if self.as_of is not None and happened_before(time, self.as_of):
            return False  # of before the snapshot, which says what came of it
        before = self.run["status"], self.run.get("waiting_for")
        self.run |= {"status": status, "waiting_for": data.get("waiting_for", [])}
        if self.has_ended:
            self.run["undoing_since"] = None
        return before != (self.run["status"], self.run["waiting_for"])

    def _apply_step(self, kind: str, data: Mapping[str, Any], time: str | None) -> bool:
        status = STATUS_OF_STEP_EVENT[kind]
        known = self.operations.get(data["operation"])
        if known is not None and not happened_before(known.ended_at or known.started_at, time):
            return False  # told already, by the history or by an earlier stream
        operation = known or Operation(data["operation"], data["kind"], data["name"], status)
        operation.status = status
        operation.attempt = data["attempt"]
        operation.started_at = operation.started_at or time
        operation.ended_at = None if status == "running" else time
        if error := data.get("error"):
            operation.error = error.get("message")
        self.operations[operation.key] = operation
        undone = self.operations.get(operation.key.removesuffix(UNDO_SUFFIX))
        if operation.kind == "undo" and undone is not None:
            undone.undo = undo_told(undone.undo, kind, data)
        return True

    def _put(self, entry: Mapping[str, Any]) -> None:
        error = entry.get("error") or {}
        self.operations[entry["operation"]] = Operation(
            key=entry["operation"],
            kind=entry["kind"],
            name=entry["name"],
            status=entry["status"],
            attempt=entry["attempt"],
            started_at=entry["started_at"],
            ended_at=entry["ended_at"],
            error=error.get("message"),
            undo=entry.get("undo"),
        )


def operation_label(kind: str, name: str) -> str:
    """What an operation is called: a step by its name, anything else with its kind."""
    return name if kind in ("step", "transaction", name) else f"{kind} {name}".rstrip()


def happened_before(earlier: str | None, later: str | None) -> bool:
    """Whether one RFC 3339 time is before another; an unknown one is before everything."""
    first, second = moments.parse(earlier), moments.parse(later)
    return first is None or (second is not None and first < second)


def event_line(event: Mapping[str, Any]) -> str:
    """One line about one event, for a pipe or a log."""
    kind = str(event.get("type"))
    data = (event.get("data") or {}) if kind.startswith("evs.") else {}  # what others put into theirs, only they know
    what = kind.removeprefix("evs.").replace(".", " ")
    parts = [moments.clock(event.get("time")), f"{what:<16}"]
    if "operation" in data:
        name = operation_label(data["kind"], data["name"])
        parts.append(name + (f" (attempt {data['attempt']})" if data.get("attempt", 1) > 1 else ""))
    elif kind == RUN_UNDOING and "operations" in data:
        parts.append(f"{data['operations']} operations")
    elif "fraction" in data:
        parts.append(f"{data['fraction']:.0%} {data.get('text') or ''}".rstrip())
    elif "approval" in data:
        parts.append(f"{data['name']}: {data.get('text') or data['approval']}")
    elif data.get("waiting_for"):
        parts.append(describe_waits(data["waiting_for"]))
    if error := data.get("error"):
        parts.append(f"{error.get('type')}: {error.get('message')}")
    return "  ".join(part for part in parts if part).rstrip()


def describe_waits(waits: Iterable[Mapping[str, Any]]) -> str:
    """What a run waits for, in a few words."""
    return ", ".join(_describe_wait(wait) for wait in waits)


def _describe_wait(wait: Mapping[str, Any]) -> str:
    kind, name, count = str(wait.get("kind", "")), str(wait.get("name") or ""), wait.get("count", 1)
    if kind in ("others", "worker", "slot"):
        return name if kind == "others" else f"a {kind} {name}"
    label = operation_label(kind.removeprefix("wait_"), name) + (f" ({count:,} of them)" if count > 1 else "")
    return f"{label} until {moments.clock(wait['until'])[:8]}" if wait.get("until") else label
