"""The events that tell of runs and approvals; their payloads are public interface."""

from functools import lru_cache
from typing import Any, Protocol

from pydantic import BaseModel
from pydantic_core import to_json

from lib_events.clock import to_datetime
from lib_events.event import JSON_DATA, SPEC_VERSION, Cause, EncodedEvent, EventType
from lib_workflows.authoring.operation import Operation
from lib_workflows.values.identifiers import event_id


class RunEvent(BaseModel):
    """Something happened to a run."""

    run: str
    workflow: str
    version: int
    life: int = 0  # how often it was retried, or continued as new, before


class RunEnded(RunEvent):
    """A run ended, as well or as badly as the type says."""

    created_at: str | None = None  # events of older releases do not say it
    started_at: str | None = None  # not there, either, for one that never began


class RunWaiting(RunEvent):
    """A run rests until one of these comes."""

    waiting_for: list[dict[str, Any]]


class RunFailed(RunEnded):
    """A run ended in an error."""

    error: dict[str, str]


class RunUndoing(RunEvent):
    """A run failed or was cancelled, for `error`, and undoes so many operations before it ends."""

    error: dict[str, str]
    operations: int


class RunContinued(RunEnded):
    """A run continued as new: it begins again, and `past` is the ended run that holds its history so far."""

    past: str


class StepEvent(RunEvent):
    """Something happened to a step (or transaction, child, undo) of a run."""

    operation: str
    kind: str
    name: str
    attempt: int


class StepEnded(StepEvent):
    """A step ended, or an attempt of it."""

    started_at: str | None = None  # events of older releases do not say it


class StepFailed(StepEnded):
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
RUN_UNDOING = EventType("evs.run.undoing", RunUndoing, packed=True)
RUN_CONTINUED = EventType("evs.run.continued", RunContinued, packed=True)
STEP_STARTED = EventType("evs.step.started", StepEvent, packed=True)
STEP_COMPLETED = EventType("evs.step.completed", StepEnded, packed=True)
STEP_FAILED = EventType("evs.step.failed", StepFailed, packed=True)
STEP_RETRIED = EventType("evs.step.retried", StepFailed, packed=True)
RUN_COMPLETED = EventType("evs.run.completed", RunEnded)
RUN_FAILED = EventType("evs.run.failed", RunFailed)
RUN_CANCELLED = EventType("evs.run.cancelled", RunEnded)
RUN_NONDETERMINISTIC = EventType("evs.run.nondeterministic", RunFailed)
APPROVAL_REQUESTED = EventType("evs.approval.requested", ApprovalRequested)
APPROVAL_DECIDED = EventType("evs.approval.decided", ApprovalDecided)
APPROVAL_EXPIRED = EventType("evs.approval.expired", ApprovalExpired)

EVENT_TYPES: tuple[EventType[Any], ...] = (
    RUN_QUEUED,
    RUN_STARTED,
    RUN_WAITING,
    RUN_RESUMED,
    RUN_UNDOING,
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


class Told(Protocol):
    """A run, or its row."""

    id: str
    workflow: str
    version: int
    correlation_id: str
    causation_id: str | None
    principal: str | None
    traceparent: str | None
    created_at: int
    started_at: int | None


class Teller:
    """Makes the events about one run; the data are exactly the payloads above.

    They are written as JSON at once, what all events of the run share only once: validating and encoding each by itself
    would cost more than the step that it tells of.
    """

    __slots__ = ("_about", "_correlation", "_envelope", "_run_id", "_source", "_subject", "_workflow")

    def __init__(self, run: Told, source: str, life: int = 0) -> None:
        run_id = self._run_id = run.id
        subject = self._subject = to_json(run_id).decode()
        self._workflow = run.workflow
        self._source = source
        correlation = self._correlation = run.correlation_id or run_id
        correlated = subject if correlation == run_id else to_json(correlation).decode()
        self._envelope = f'{_envelope(source)},"correlationid":{correlated}'
        if run.causation_id or run.principal or run.traceparent:
            cause = Cause(None, run.causation_id, run.principal, run.traceparent)
            self._envelope += f",{to_json(cause.extensions())[1:-1].decode()}"
        self._about = f'"run":{subject},"workflow":{_quoted(run.workflow)},"version":{run.version}'
        if life:
            self._about += f',"life":{life}'

    def tell(self, event_type: EventType[Any], at: int, **data: Any) -> EncodedEvent:
        """Make an event about the run."""
        more = f"{self._about},{to_json(data)[1:-1].decode()}" if data else self._about
        return self._event(event_type, at, self._run_id, self._subject, more)

    def tell_end(self, event_type: EventType[Any], at: int, run: Told, **data: Any) -> EncodedEvent:
        """Make an event about the end of the run, or of one life of it."""
        created = time_text(run.created_at)
        more = f'{self._about},"created_at":"{created}"'
        if run.started_at is not None:
            started = created if run.started_at == run.created_at else time_text(run.started_at)
            more = f'{more},"started_at":"{started}"'
        if data:
            more = f"{more},{to_json(data)[1:-1].decode()}"
        return self._event(event_type, at, self._run_id, self._subject, more)

    def tell_step(
        self,
        event_type: EventType[Any],
        at: int,
        operation: Operation[Any],
        path: str,
        attempt: int,
        *,
        started_at: int | None = None,
        **data: Any,
    ) -> EncodedEvent:
        """Make an event about a step, transaction, child or undo of the run; `started_at` where it has ended."""
        # Paths and kinds are our own words: nothing in them need be escaped.
        kind, name = operation.kind, _quoted(operation.name)
        more = f'{self._about},"operation":"{path}","kind":"{kind}","name":{name},"attempt":{attempt}'
        if started_at is not None:
            more = f'{more},"started_at":"{time_text(started_at)}"'
        if data:
            more = f"{more},{to_json(data)[1:-1].decode()}"
        return self._event(event_type, at, self._run_id, self._subject, more)

    def tell_approval(self, event_type: EventType[Any], at: int, approval: str, **data: Any) -> EncodedEvent:
        """Make an event about an approval of the run."""
        about = {"approval": approval, "run": self._run_id, "workflow": self._workflow}
        return self._event(event_type, at, approval, to_json(approval).decode(), to_json(about | data)[1:-1].decode())

    def _event(self, event_type: EventType[Any], at: int, subject: str, encoded: str, members: str) -> EncodedEvent:
        name, event = event_type.name, event_id(at, subject)
        own = f'"id":"{event}","type":"{name}","time":"{time_text(at)}","subject":{encoded}'
        body = f'{self._envelope},{own},"data":{{{members}}}}}'.encode()
        return EncodedEvent(event, self._source, name, subject, at, self._correlation, body, event_type.packed)


@lru_cache(maxsize=64)
def _envelope(source: str) -> str:
    attributes = {"specversion": SPEC_VERSION, "source": source, "datacontenttype": JSON_DATA}
    return to_json(attributes)[:-1].decode()


@lru_cache(maxsize=4_096)
def _quoted(name: str) -> str:
    return to_json(name).decode()


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return to_datetime(seconds * 1_000_000).isoformat().removesuffix("+00:00")


def time_text(micros: int) -> str:
    """A time as events and the API write it (RFC 3339)."""
    seconds, rest = divmod(micros, 1_000_000)
    return f"{_second(seconds)}.{rest:06d}Z" if rest else f"{_second(seconds)}Z"
