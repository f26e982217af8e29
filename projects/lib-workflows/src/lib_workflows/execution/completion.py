"""How an operation of a run ended, on its way into the history and to the workflow."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from lib_events.statement import Write
from lib_workflows.errors import Cancelled, ErrorRecord, WaitTimeout
from lib_workflows.execution.driver import Outcome, Pending
from lib_workflows.execution.history import failure_of
from lib_workflows.runs.record import Message
from lib_workflows.statements import DELETE_ATTEMPT, HistoryRow
from lib_workflows.values.codec import encode_json
from lib_workflows.values.failure import encode_record, record_of

if TYPE_CHECKING:
    from lib_workflows.execution.executor import Executor


@dataclass(slots=True, eq=False)
class Completion:
    """An operation that ended: its row to be, and what the workflow is told."""

    pending: Pending
    outcome: Outcome
    status: str = "completed"
    attempt: int = 1
    started_at: int = 0
    ended_at: int = 0  # 0: when it is delivered
    input: str | None = None
    output: str | None = None
    error: str | None = None
    meta: str | None = None
    writes: tuple[Write, ...] = ()
    on_delivery: Callable[[], None] | None = None  # does what else is done with the row, and not without it
    position: int | None = None  # already written, at this position, by a transaction
    message: Message | None = None  # what it takes from the mailbox


@dataclass(slots=True, eq=False)
class CancelRequest:
    """Somebody wants the run to stop."""

    reason: str
    message: int | None = None


def completed(pending: Pending, value: Any, output: str | None = None) -> Completion:
    """An operation that gave `value`."""
    return Completion(pending, Outcome(value), output=output)


def failed(pending: Pending, error: BaseException, attempt: int = 1) -> Completion:
    """An operation that ended in `error`."""
    record = record_of(error)
    if isinstance(error, WaitTimeout):
        record = ErrorRecord(record.type, record.message)
    outcome = failure_of(pending.operation, record, attempt)
    return Completion(pending, outcome, status="failed", attempt=attempt, error=encode_record(record))


def complete_cancelled(executor: "Executor", pending: Pending, *, ran: bool, started_at: int = 0) -> None:
    """Write down that an operation was cancelled, and whether it may have had its effect."""
    outcome = Outcome(error=Cancelled(), effect="unknown" if ran else "no")
    completion = Completion(pending, outcome, status="cancelled", meta=encode_json({"ran": ran}))
    completion.started_at = started_at
    if pending.path in executor.attempts:
        # Not beside the row of an attempt that has just failed: in one group commit neither would see the other.
        forgotten = Write(DELETE_ATTEMPT, (executor.run.id, pending.path))
        executor.when_durable(partial(executor.ledger.add, forgotten))
    executor.complete(completion)


def bare_row(pending: Pending, status: str, **fields: Any) -> HistoryRow:
    operation = pending.operation
    return HistoryRow("", 0, pending.path, operation.kind, operation.name, status, 1, 0, 0, **fields)
