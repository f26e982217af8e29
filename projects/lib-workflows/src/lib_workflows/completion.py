"""How an operation of a run ended, on its way into the history and to the workflow."""

from dataclasses import dataclass
from typing import Any

from lib_events.statement import Write
from lib_workflows.driver import Outcome, Pending
from lib_workflows.errors import ErrorRecord, WaitTimeout
from lib_workflows.failure import encode_record, record_of
from lib_workflows.history import failure_of
from lib_workflows.run_record import Message
from lib_workflows.statements import HistoryRow


@dataclass(slots=True, eq=False)
class Completion:
    """An operation that ended: its row to be, and what the workflow is told."""

    pending: Pending
    outcome: Outcome
    status: str = "completed"
    attempt: int = 1
    started_at: int = 0
    input: str | None = None
    output: str | None = None
    error: str | None = None
    meta: str | None = None
    writes: tuple[Write, ...] = ()
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


def bare_row(pending: Pending, status: str, **fields: Any) -> HistoryRow:
    operation = pending.operation
    return HistoryRow("", 0, pending.path, operation.kind, operation.name, status, 1, 0, 0, **fields)
