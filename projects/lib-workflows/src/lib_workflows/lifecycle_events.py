"""The events that tell of runs and approvals; their payloads are public interface."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from lib_events.clock import to_datetime
from lib_events.event import Cause, Event, EventType
from lib_workflows.identifiers import event_id


class RunEvent(BaseModel):
    """Something happened to a run."""

    run: str
    workflow: str
    version: int


class RunWaiting(RunEvent):
    """A run rests until one of these comes."""

    waiting_for: list[dict[str, Any]]


class RunFailed(RunEvent):
    """A run ended in an error."""

    error: dict[str, str]


class RunContinued(RunEvent):
    """A run continued as new: it begins again, and `past` is the ended run that holds its history so far."""

    past: str


class StepEvent(RunEvent):
    """Something happened to a step (or transaction, child, undo) of a run."""

    operation: str
    kind: str
    name: str
    attempt: int


class StepFailed(StepEvent):
    """A step failed for good, or (`evs.step.retried`) an attempt did and another one follows."""

    error: dict[str, str]


class ApprovalRequested(BaseModel):
    """A run asks `to` to decide."""

    approval: str
    run: str
    workflow: str
    name: str
    text: str
    to: str
    due_at: str | None = None
    about: dict[str, Any] | None = None


class ApprovalDecided(BaseModel):
    """Somebody decided; nothing but the decision's own transaction can publish this."""

    approval: str
    run: str
    workflow: str
    name: str
    approved: bool
    by: str
    by_name: str | None
    by_roles: list[str]
    comment: str | None
    form: dict[str, Any] | None
    about: dict[str, Any] | None


class ApprovalExpired(BaseModel):
    """Nobody decided in time, or the run does not want to know any more."""

    approval: str
    run: str
    workflow: str
    name: str


RUN_QUEUED = EventType("evs.run.queued", RunEvent, packed=True)
RUN_STARTED = EventType("evs.run.started", RunEvent, packed=True)
RUN_WAITING = EventType("evs.run.waiting", RunWaiting, packed=True)
RUN_RESUMED = EventType("evs.run.resumed", RunEvent, packed=True)
RUN_CONTINUED = EventType("evs.run.continued", RunContinued, packed=True)
STEP_STARTED = EventType("evs.step.started", StepEvent, packed=True)
STEP_COMPLETED = EventType("evs.step.completed", StepEvent, packed=True)
STEP_FAILED = EventType("evs.step.failed", StepFailed, packed=True)
STEP_RETRIED = EventType("evs.step.retried", StepFailed, packed=True)
RUN_COMPLETED = EventType("evs.run.completed", RunEvent)
RUN_FAILED = EventType("evs.run.failed", RunFailed)
RUN_CANCELLED = EventType("evs.run.cancelled", RunEvent)
RUN_NONDETERMINISTIC = EventType("evs.run.nondeterministic", RunFailed)
APPROVAL_REQUESTED = EventType("evs.approval.requested", ApprovalRequested)
APPROVAL_DECIDED = EventType("evs.approval.decided", ApprovalDecided)
APPROVAL_EXPIRED = EventType("evs.approval.expired", ApprovalExpired)

EVENT_TYPES: tuple[EventType[Any], ...] = (
    RUN_QUEUED,
    RUN_STARTED,
    RUN_WAITING,
    RUN_RESUMED,
    RUN_CONTINUED,
    STEP_STARTED,
    STEP_COMPLETED,
    STEP_FAILED,
    STEP_RETRIED,
    RUN_COMPLETED,
    RUN_FAILED,
    RUN_CANCELLED,
    RUN_NONDETERMINISTIC,
    APPROVAL_REQUESTED,
    APPROVAL_DECIDED,
    APPROVAL_EXPIRED,
)
RUN_ENDED: dict[str, EventType[Any]] = {
    "completed": RUN_COMPLETED,
    "failed": RUN_FAILED,
    "cancelled": RUN_CANCELLED,
    "nondeterministic": RUN_NONDETERMINISTIC,
}


@dataclass(frozen=True, slots=True)
class Teller:
    """Makes the events about one run; the data are dictionaries of exactly the payloads above."""

    run_id: str
    workflow: str
    version: int
    source: str
    extensions: dict[str, str]

    @classmethod
    def of(cls, run_id: str, workflow: str, version: int, source: str, cause: Cause) -> "Teller":
        """For a run with that cause."""
        return cls(run_id, workflow, version, source, {"correlationid": run_id} | cause.extensions())

    def tell(self, event_type: EventType[Any], at: int, **data: Any) -> Event:
        """Make an event about the run."""
        payload = {"run": self.run_id, "workflow": self.workflow, "version": self.version, **data}
        return self._event(event_type, at, self.run_id, payload)

    def tell_approval(self, event_type: EventType[Any], at: int, approval: str, **data: Any) -> Event:
        """Make an event about an approval of the run."""
        payload = {"approval": approval, "run": self.run_id, "workflow": self.workflow, **data}
        return self._event(event_type, at, approval, payload)

    def _event(self, event_type: EventType[Any], at: int, subject: str, data: dict[str, Any]) -> Event:
        # Not Event.of: validating what we just built would cost more than the rest of the event.
        return Event(
            id=event_id(at),
            source=self.source,
            type=event_type.name,
            time=to_datetime(at),
            subject=subject,
            data=data,
            extensions=self.extensions,
            packed=event_type.packed,
        )


def time_text(micros: int) -> str:
    """A time as events and the API write it (RFC 3339)."""
    return to_datetime(micros).isoformat().replace("+00:00", "Z")
