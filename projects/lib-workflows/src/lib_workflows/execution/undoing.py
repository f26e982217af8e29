"""What of a run can be undone, and that it is being undone: written beside its rows, where a replay passes over it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lib_workflows.authoring.operation import undo_name
from lib_workflows.errors import Cancelled, ErrorRecord
from lib_workflows.execution.completion import Completion
from lib_workflows.runs.lifecycle_events import RUN_UNDOING
from lib_workflows.runs.record import UNDOING_KIND, UNDOING_OPERATION
from lib_workflows.values.codec import decode_json, encode_json
from lib_workflows.values.failure import encode_record, record_of

if TYPE_CHECKING:
    from lib_workflows.execution.executor import Executor


def meta_of(completion: Completion) -> str | None:
    """The meta of an operation's row: it names what undoes the operation, if that had an effect to undo."""
    undo = completion.pending.operation.undo
    if undo is None or completion.outcome.effect == "no":
        return completion.meta
    meta = decode_json(completion.meta) if completion.meta else {}
    return encode_json(meta | {"undo": undo_name(undo)})


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


def _reason(error: BaseException) -> ErrorRecord:
    record = record_of(error, stack=False)
    return ErrorRecord("RunCancelled", record.message) if isinstance(error, Cancelled) else record
