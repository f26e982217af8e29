"""How a run ends: completed, failed, cancelled, parked, or going on as new."""

from functools import partial
from typing import TYPE_CHECKING

from lib_workflows.errors import Cancelled, Continued, ErrorRecord, Nondeterministic
from lib_workflows.execution.completion import CancelRequest
from lib_workflows.execution.driver import Outcome
from lib_workflows.execution.wait_effects import reason_of
from lib_workflows.runs.lifecycle_events import RUN_ENDED
from lib_workflows.runs.record import GOT_OVER_KIND
from lib_workflows.values.codec import encode_json
from lib_workflows.values.failure import encode_record, record_of

if TYPE_CHECKING:
    from lib_workflows.execution.executor import Executor

RUN_DEADLINE = ""  # among the timers of its operations
DEADLINE_REASON = "its deadline passed"
CONTINUATION = "continuation"


def hear_cancellations(executor: "Executor") -> None:
    """What was cancelled, or late, before it came into memory begins nothing more: it hears of that first."""
    deadline_at, stored = executor.run.deadline_at, executor.stored
    if executor.driver.outcome is None or executor.is_cancelled:
        for message in [found for found in stored.messages if found.kind == "cancel"]:
            stored.messages.remove(message)
            executor.cancel(CancelRequest(reason_of(message.payload or ""), message.number))
        if deadline_at is not None and deadline_at <= executor.clock_micros():
            executor.cancel(CancelRequest(DEADLINE_REASON))
    if deadline_at is not None and not executor.is_cancelled and not executor.driver.undoing:
        executor.arm(RUN_DEADLINE, deadline_at, partial(_end_late, executor))


def _end_late(executor: "Executor") -> None:
    """One that undoes what it did goes on with that, and its deadline must not wake it again."""
    executor.disarm(RUN_DEADLINE)
    executor.request_cancel(DEADLINE_REASON)


def finish(executor: "Executor", outcome: Outcome) -> None:
    """End a run whose function has ended, once nothing of it is under way."""
    if executor.running or executor.has_gated or executor.transaction is not None:
        return
    error = outcome.error
    if isinstance(error, Continued):
        _continue(executor, error.payload)
    elif error is None:
        _end(executor, "completed", outcome.value, None)
    elif isinstance(error, Cancelled) and executor.is_cancelled:
        _end_cancelled(executor)
    else:
        if executor.driver.has_got_over:
            executor.mark(f"{GOT_OVER_KIND}:{executor.position + 1}", GOT_OVER_KIND, GOT_OVER_KIND)
        _end(executor, "failed", None, record_of(error))


def park(executor: "Executor", error: Nondeterministic) -> None:
    """Put a run aside that no longer matches its history: it can be retried, forked or cancelled."""
    executor.driver.close()
    _end(executor, "nondeterministic", None, record_of(error, stack=False))


def _continue(executor: "Executor", payload: str | None) -> None:
    """Continue as new, once everything of this life is durable; a cancellation that comes first comes in time."""
    if executor.is_continuing:
        return
    executor.is_continuing = True

    def begin() -> None:
        executor.running[CONTINUATION] = executor.home.spawn(executor.home.continue_as_new(executor, payload))

    executor.when_durable(begin)


def _end_cancelled(executor: "Executor") -> None:
    run_id, reason = executor.run.id, reason_of(executor.cancel_reason)
    if reason == DEADLINE_REASON:
        late = ErrorRecord("DeadlineExceeded", f"run {run_id} must end in time: {reason}")
        _end(executor, "failed", None, late)
        return
    state = {"args": [f"run {run_id} was cancelled: {reason}"], "attributes": {"run_id": run_id, "reason": reason}}
    path = "lib_workflows.errors:RunCancelled"
    _end(executor, "cancelled", None, ErrorRecord("RunCancelled", reason, path=path, state=encode_json(state)))


def _end(executor: "Executor", status: str, output: str | None, record: ErrorRecord | None) -> None:
    run, now = executor.run, executor.clock_micros()
    executor.status = run.status = status
    run.output, run.error = output, encode_record(record) if record is not None else None
    told = {"error": {"type": record.type, "message": record.message}} if record and status != "cancelled" else {}
    executor.ended, executor.ended_at = True, now if status != "nondeterministic" else None
    executor.ledger.row_is_due(executor.teller.tell_end(RUN_ENDED[status], now, run, **told), ends=True)
    executor.ledger.flush()
