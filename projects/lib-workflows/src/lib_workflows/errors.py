"""What can go wrong with workflows, each kind with its own type, its fields and what to do about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


class WorkflowsError(Exception):
    """The base of every error this library raises on purpose."""


class DefinitionError(WorkflowsError, TypeError):
    """A workflow, step or message is declared in a way the engine cannot run."""


class DeterminismError(WorkflowsError):
    """A workflow did something whose outcome is not in its history; the text names the line and the way out."""


class UnknownWorkflow(WorkflowsError, LookupError):
    """No workflow of that name (and version) is registered."""

    def __init__(self, name: str, version: int | None, known: Sequence[str]) -> None:
        wanted = name if version is None else f"{name} version {version}"
        super().__init__(f"workflow must be one of {', '.join(known) or '(none)'}, got {wanted}; register it")
        self.name = name
        self.version = version


class RunNotFound(WorkflowsError, LookupError):
    """No run has that id."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"no run has the id {run_id!r}; list runs to find it")
        self.run_id = run_id


class RunConflict(WorkflowsError):
    """The id (or idempotency key) already belongs to a run that means something else."""

    def __init__(self, run_id: str, what: str = "id") -> None:
        super().__init__(
            f"run {what} must mean one workflow and one input, got {run_id!r} for another; choose a new one"
        )
        self.run_id = run_id
        self.what = what


class RunIdTaken(RunConflict):
    """The id that a run has chosen for its child is another run's: nobody else may have a child's result, or end it."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        told = (
            f"id of a child must be no other run's, got {run_id!r}; choose one that says whose it is, such as "
            'f"{ctx.run_id}-…", or start it apart with ctx.start(…, id=…), which finds a run that there is'
        )
        self.args = (told,)


class CommandRefused(WorkflowsError):
    """A run cannot do this in the status it is in."""

    def __init__(self, run_id: str, command: str, status: str, allowed: Sequence[str]) -> None:
        super().__init__(f"to {command} a run, its status must be {' or '.join(allowed)}, got {status} ({run_id})")
        self.run_id = run_id
        self.command = command
        self.status = status
        self.allowed = tuple(allowed)


class OperationNotFound(WorkflowsError, LookupError):
    """The history of a run has no such operation."""

    def __init__(self, run_id: str, operation: str) -> None:
        super().__init__(
            f"operation must be one of the run's history, such as 3 or 2/1, got {operation!r} ({run_id}); "
            "show the run to find it"
        )
        self.run_id = run_id
        self.operation = operation


class UpdateNotFound(WorkflowsError, LookupError):
    """No update has that id: none was sent, or it went with its run when that was too old to be kept."""

    def __init__(self, update_id: str) -> None:
        super().__init__(f"no update has the id {update_id!r}; look whether its run is still there, or send it again")
        self.update_id = update_id


class ApprovalNotFound(WorkflowsError, LookupError):
    """No approval has that id, or the run has not asked for one of that name."""

    def __init__(self, approval_id: str, run_id: str | None = None) -> None:
        missing = f"no approval has the id {approval_id!r}; list approvals to find it"
        unasked = f"run {run_id} must have asked for approval {approval_id!r}, and has not; wait until it does"
        super().__init__(missing if run_id is None else unasked)
        self.approval_id = approval_id
        self.run_id = run_id


class ApprovalDecided(WorkflowsError):
    """An approval is decided once; this one already is (or expired)."""

    def __init__(self, approval_id: str, status: str) -> None:
        super().__init__(f"approval must be pending, got {status} ({approval_id}); nothing was changed")
        self.approval_id = approval_id
        self.status = status


class PayloadInvalid(WorkflowsError, ValueError):
    """A value does not fit the type it is declared as; `field` names the part at fault."""

    def __init__(self, what: str, problem: str, *, field: str = "") -> None:
        super().__init__(f"{what}{'.' + field if field else ''} must fit its declared type: {problem}")
        self.what = what
        self.field = field
        self.problem = problem


class PayloadVersionUnknown(WorkflowsError):
    """A payload was written by a newer release, in a way this one cannot read."""

    def __init__(self, what: str, version: str) -> None:
        super().__init__(f"{what} must be a payload of version 1, got version {version}; use the release that wrote it")
        self.what = what
        self.version = version


class TextInvalid(WorkflowsError, ValueError):
    """A name, an id or a reason is no text that a database keeps."""

    def __init__(self, what: str, value: object, limit: int) -> None:
        super().__init__(
            f"{what} must be a text of at most {limit} characters, without NUL and half characters and, if it is a "
            f"name, not empty; got {value!r:.100}"
        )
        self.what = what


class TagsInvalid(WorkflowsError, ValueError):
    """Tags are short texts, and not too many."""


class FilterInvalid(WorkflowsError, ValueError):
    """Runs are looked for by something that no run can have."""


class PayloadTooLarge(WorkflowsError, ValueError):
    """A payload is larger than the history may hold."""

    def __init__(self, what: str, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"{what} must encode to at most {limit_bytes} bytes, got {size_bytes}; "
            "store it elsewhere and pass a reference"
        )
        self.what = what
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """An exception as the history keeps it."""

    type: str
    message: str
    stack: str = ""
    path: str = ""  # "module:QualifiedName", how a declared error is found again
    state: str = ""  # JSON of a declared error's arguments and attributes


class StepFailed(WorkflowsError):
    """A step failed for good: its retries are used up, or the error is none that a retry can mend."""

    def __init__(self, name: str, attempts: int, error: ErrorRecord) -> None:
        super().__init__(f"step {name} failed after {attempts} attempt(s): {error.type}: {error.message}")
        self.name = name
        self.attempts = attempts
        self.error = error


class ErrorLost(WorkflowsError):
    """An exception that a workflow was told of cannot be made again: its class is not there any more."""

    def __init__(self, path: str) -> None:
        super().__init__(f"error {path} must be there to be raised again, and is not; bring the class back")
        self.path = path


type Limit = Literal["attempt", "heartbeat", "start", "total"]


class StepTimeout(WorkflowsError, TimeoutError):
    """A step took longer than one of its limits; after `start` and `total` there is no further attempt."""

    def __init__(self, name: str, timeout_seconds: float, limit: Limit = "attempt") -> None:
        rule = {
            "attempt": "end within {} s; raise its timeout or make it shorter",
            "heartbeat": "send a heartbeat every {} s; call current_step().heartbeat() more often",
            "start": "find a free thread or process within {} s; allow more of them, or fewer steps at once",
            "total": "end within {} s with all its attempts; raise its total_timeout or look at its errors",
        }[limit]
        super().__init__(f"step {name} must {rule.format(timeout_seconds)}")
        self.name = name
        self.timeout_seconds = timeout_seconds
        self.limit: Limit = limit


class NonRetryable(WorkflowsError):
    """Raised inside a step whose further attempts would fail too: it is not retried and ends as `StepFailed`."""


type Refusal = Literal["undeclared", "unsupported", "none", "expired", "withdrawn", "person", "scope"]


class DelegationRefused(NonRetryable):
    """A step gets no access token for the person who started its run, and asking again would not help.

    `reason`: the workflow does not declare it (`undeclared`); the engine has no source of tokens (`unsupported`); the
    run has nobody to act for, or was not given anything (`none`); it was for a time that is over (`expired`); the
    person or an administrator took it back (`withdrawn`); the person cannot sign in any more (`person`); the service no
    longer lets it be done (`scope`).
    """

    def __init__(self, reason: Refusal, text: str) -> None:
        super().__init__(text)
        self.reason: Refusal = reason


class TokensUnavailable(WorkflowsError):
    """A step gets no access token now; a later attempt may get one."""


class StepProcessDied(WorkflowsError):
    """The process of a `process=True` step ended by itself: it crashed, or the system killed it for its memory."""


class ExitRefused(WorkflowsError):
    """A step or a transaction asked its process to end: that fails the attempt, and the worker goes on."""

    def __init__(self, error: BaseException) -> None:
        asked = type(error).__name__ + (f": {error}" if str(error) else "")
        super().__init__(f"code of a workflow must return or raise an error, it asked the worker to end ({asked})")


class StepCancelled(WorkflowsError):
    """Raised inside a synchronous step that asks `current_step().raise_if_cancelled()` after its cancellation."""


class WaitTimeout(WorkflowsError, TimeoutError):
    """What a workflow waited for did not come in time."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} did not come in time")
        self.what = what


class Cancelled(BaseException):
    """Thrown into a workflow that is cancelled, like `asyncio.CancelledError` into a task.

    `scope` is the path of what ends: a `ctx.timeout` block, a gather, a race; () is the whole run.
    """

    def __init__(self, reason: str = "cancelled", scope: tuple[int, ...] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.scope = scope

    def outranks(self, other: BaseException | None) -> bool:
        """Whether it comes from further outside than a cancellation before it: paths of enclosing scopes ascend."""
        return not isinstance(other, Cancelled) or self.scope < other.scope


class Continued(BaseException):
    """Thrown into a workflow that asked to continue as new, so that its blocks are left in order."""

    def __init__(self, payload: str | None) -> None:
        super().__init__()
        self.payload = payload


class ChildrenTooDeep(WorkflowsError):
    """A child of a child of a child …: so deep that it must be a recursion without an end."""

    def __init__(self, name: str, limit: int) -> None:
        super().__init__(
            f"children must nest at most {limit} deep, workflow {name} would go deeper; end the recursion, "
            "or let it go on by ctx.start or ctx.continue_as_new"
        )
        self.name = name
        self.limit = limit


class RunFailed(WorkflowsError):
    """A run ended in an error; `error` holds its type, message and stack."""

    def __init__(self, run_id: str, error: ErrorRecord) -> None:
        super().__init__(f"run {run_id} failed: {error.type}: {error.message}")
        self.run_id = run_id
        self.error = error


class RunCancelled(WorkflowsError):
    """A run was cancelled; what it had done is undone."""

    def __init__(self, run_id: str, reason: str = "cancelled") -> None:
        super().__init__(f"run {run_id} was cancelled: {reason}")
        self.run_id = run_id
        self.reason = reason


class Nondeterministic(WorkflowsError):
    """The code asked for something else than its history holds; the run is parked until that is settled."""

    def __init__(self, run_id: str, position: int, expected: str, found: str) -> None:
        super().__init__(
            f"run {run_id} must repeat its history: at position {position} the history has {expected}, "
            f"the code has {found}; restore the code of this version or register the change as a new version"
        )
        self.run_id = run_id
        self.position = position
        self.expected = expected
        self.found = found


class UndoUnknown(WorkflowsError):
    """What undoes an operation is not known: the code of today does not come to it as the history of its run has it."""

    def __init__(self, operation: str, undo: str) -> None:
        super().__init__(
            f"operation {operation} must be undone by {undo}, and the code of today does not ask for it as the history "
            "has it; undo it by hand"
        )
        self.operation = operation
        self.undo = undo


class UpdateRejected(WorkflowsError):
    """The workflow refused an update."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"update {name} was rejected: {reason}")
        self.name = name
        self.reason = reason


class LifeOver(WorkflowsError):
    """A run has been loaded again, or has gone on as new: what was asked for by its life before is not done."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run {run_id} must be in the life that asks, and has another one; nothing was done")
        self.run_id = run_id


class EngineStopped(WorkflowsError):
    """The engine was asked for work while it is not running."""


class QueueInvalid(DefinitionError):
    """A limit of a queue makes no sense; `field` names it."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} of a queue {problem}")
        self.field = field
        self.problem = problem


class QueueDeclared(WorkflowsError):
    """The limits of the queue are declared in code, and are for the code to say."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"limits of queue {name} must be changed where they are declared, in the code of a workflow; here it can "
            "be paused and resumed"
        )
        self.name = name


class ScheduleInvalid(WorkflowsError, ValueError):
    """A part of a schedule makes no sense; `field` names it."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field
        self.problem = problem


class ScheduleNotFound(WorkflowsError, LookupError):
    """No schedule has that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no schedule has the name {name!r}; list schedules to find it")
        self.name = name


class ScheduleExists(WorkflowsError):
    """There is a schedule of that name already."""

    def __init__(self, name: str) -> None:
        super().__init__(f"name must be of no other schedule, got {name!r}; change that one, or choose a new name")
        self.name = name


class ScheduleDeclared(WorkflowsError):
    """The schedule is declared beside its workflow: what it does and when is for the code to say."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"schedule {name} must be changed where it is declared, in the code of its workflow; here it can be "
            "paused, resumed, triggered and backfilled"
        )
        self.name = name
