"""What of a run can be undone, and that it is being undone: written beside its rows, where a replay passes over it."""

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lib_workflows.authoring.guard import drop
from lib_workflows.authoring.operation import AWAITED_KINDS, RunUndo, undo_name
from lib_workflows.errors import Cancelled, ErrorRecord, NonRetryable
from lib_workflows.execution.completion import Completion
from lib_workflows.runs.lifecycle_events import RUN_UNDOING
from lib_workflows.runs.record import UNDOING_KIND, UNDOING_OPERATION
from lib_workflows.values.codec import decode_json, encode_json
from lib_workflows.values.failure import encode_record, record_of

if TYPE_CHECKING:
    from lib_workflows.execution.executor import Executor


def meta_of(completion: Completion) -> str | None:
    """The meta of an operation's row: it names what undoes the operation, if that had an effect to undo, and says how
    the workflow is told of its failure, so that a replay tells it the same.
    """
    operation = completion.pending.operation
    if operation.undo is None and completion.status == "completed":
        return completion.meta  # nearly all of them
    said = {}
    if operation.undo is not None and completion.outcome.effect != "no":
        said["undo"] = undo_name(operation.undo)
    if completion.status == "failed" and operation.kind in AWAITED_KINDS:
        said["told"] = "itself" if completion.outcome.is_itself else "wrapped"
    if not said:
        return completion.meta
    return encode_json((decode_json(completion.meta) if completion.meta else {}) | said)


def announce(executor: "Executor", plan: Sequence[str], error: BaseException) -> None:
    """Say, once, that the run undoes what it did, and why: in its history and to whoever listens."""
    if executor.is_undoing:
        return
    executor.is_undoing = True
    record = _reason(error)
    executor.mark(
        UNDOING_OPERATION, UNDOING_KIND, UNDOING_KIND, encode_json({"plan": plan}), error=encode_record(record)
    )
    told = {"type": record.type, "message": record.message}
    executor.ledger.tell(executor.teller.tell(RUN_UNDOING, executor.clock_micros(), error=told, operations=len(plan)))


def check_undone(operation: RunUndo, value: object) -> None:
    """Raise `NonRetryable` where an undo has returned something that is still to be run: it has undone nothing."""
    if not (inspect.isawaitable(value) or inspect.isgenerator(value) or inspect.isasyncgen(value)):
        return
    error = NonRetryable(
        f"undo {operation.name} must have undone it when it returns, got {value!r:.100} that nobody runs; make it "
        "an async def, or for a transaction a def that awaits nothing"
    )
    drop(value)
    raise error


def _reason(error: BaseException) -> ErrorRecord:
    record = record_of(error, stack=False)
    return ErrorRecord("RunCancelled", record.message) if isinstance(error, Cancelled) else record
