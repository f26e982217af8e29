"""The history of a run: rows become outcomes again, and replaying them brings a workflow back to where it was."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

from lib_workflows.authoring.messages import Decision, UpdateCall
from lib_workflows.authoring.operation import (
    Operation,
    RaceWon,
    RunChild,
    RunStep,
    RunTransaction,
    StartRun,
    WaitEvent,
    WaitSignal,
    WaitUpdate,
    name_of,
)
from lib_workflows.errors import (
    Cancelled,
    ErrorRecord,
    Nondeterministic,
    RunFailed,
    StepFailed,
    WaitTimeout,
    WorkflowsError,
)
from lib_workflows.execution.driver import Driver, Outcome, Pending
from lib_workflows.runs.record import (
    FORK_KIND,
    GOT_OVER_KIND,
    RECEIVED_KIND,
    RETRY_KIND,
    UNDOING_KIND,
    RunRecord,
)
from lib_workflows.statements import HistoryRow
from lib_workflows.values.codec import Signature, decode_json
from lib_workflows.values.failure import (
    Told,
    decode_record,
    rebuild,
    rebuild_imported,
    rebuild_loaded,
    subclasses,
)

CANCEL_OPERATION = "cancel"
MARKS = ("patch", RECEIVED_KIND, UNDOING_KIND, GOT_OVER_KIND)  # rows that no operation waits for
UNASKED = frozenset((*MARKS, RETRY_KIND, FORK_KIND))  # the workflow hears nothing of them
PATCH_PREFIX = "patch:"  # of the operation in a patch's row; branch paths are numbers


@lru_cache(maxsize=1024)
def transaction_signature(function: Callable[..., Any]) -> Signature:
    """The types of a transaction function, without its connection."""
    return Signature(function, f"transaction {name_of(function)}").drop_first()


def outcome_of(operation: Operation[Any], row: HistoryRow) -> Outcome:
    """What the workflow is told of `row`: the same live and replayed."""
    if row.status == "completed":
        return Outcome(_value_of(operation, row))
    if row.status == "cancelled":
        return Outcome(error=Cancelled(), effect="unknown" if _ran(row, default=True) else "no")
    told = None if row.meta is None else decode_json(row.meta).get("told")
    outcome = failure_of(operation, decode_record(row.error or "{}"), row.attempt, told)
    if isinstance(operation, RunChild) and _ran(row, default=False):
        outcome.effect = "unknown"
    return outcome


def _ran(row: HistoryRow, *, default: bool) -> bool:
    """Whether an operation that gave nothing may have had its effect."""
    return default if row.meta is None else bool(decode_json(row.meta).get("ran", default))


def failure_of(operation: Operation[Any], record: ErrorRecord, attempts: int, told: Told | None = None) -> Outcome:
    """The outcome of an operation that failed with `record`; `told`: how a workflow was told of it before."""
    if isinstance(operation, RunStep):
        error = _itself(operation, record, told)
        if error is not None:
            return Outcome(error=error, effect="no", is_itself=True)
        return Outcome(error=StepFailed(operation.name, attempts, record), effect="unknown")
    if isinstance(operation, RunTransaction):
        # It was rolled back: whatever it raised is a result.
        error = _itself(operation, record, told)
        wrapped = StepFailed(operation.name, attempts, record)
        return Outcome(error=error or wrapped, effect="no", is_itself=error is not None)
    if isinstance(operation, RunChild):
        # It undid itself what it had done; one that completed and gave what cannot be read did not, see `outcome_of`.
        error = _itself(operation, record, told)
        return Outcome(error=_of_run(operation.name, record, error), effect="no", is_itself=error is not None)
    if record.type == "WaitTimeout":
        return Outcome(error=WaitTimeout(f"{operation.kind} {operation.name}"))
    # What the engine itself refused is an error of its own.
    refused = rebuild(record, subclasses([WorkflowsError]))
    return Outcome(error=refused or StepFailed(operation.name, attempts, record))


def _itself(operation: Operation[Any], record: ErrorRecord, told: Told | None) -> Exception | None:
    """The exception itself, where the workflow hears of that; None where of one that wraps it.

    Which of the two must not depend on what is loaded: it is told as it was `told` before. Raises `ErrorLost`.
    """
    if told == "wrapped":
        return None
    found = rebuild(record, subclasses(operation.step.options.errors)) if isinstance(operation, RunStep) else None
    if told == "itself":
        return found or rebuild_imported(record)
    return found if isinstance(operation, RunStep) else rebuild_loaded(record)


def run_error(run_id: str, record: ErrorRecord) -> Exception:
    """The exception callers get for a run that failed: the run's own error where it can be made again."""
    return _of_run(run_id, record, rebuild_loaded(record))


def _of_run(run_id: str, record: ErrorRecord, error: Exception | None) -> Exception:
    if error is None:
        return RunFailed(run_id, record)
    if not isinstance(error, RunFailed):
        error.__cause__ = RunFailed(run_id, record)
    return error


def _value_of(operation: Operation[Any], row: HistoryRow) -> Any:  # noqa: PLR0911 - one line per kind
    text = row.output
    match operation:
        case RunStep():
            return operation.step.signature.result.decode(text or "null")
        case RunTransaction():
            return transaction_signature(operation.function).result.decode(text or "null")
        case RunChild():
            return operation.workflow.signature.result.decode(text or "null")
        case WaitSignal():
            return operation.signal.codec.decode(text or "null")
        case WaitUpdate():
            call_id = decode_json(row.meta or "{}")["id"]
            return UpdateCall(call_id, operation.update.codec.decode(text or "null"), operation.update)
        case WaitEvent():
            return operation.event_type.adapter.validate_json(text or "null")
        case RaceWon():
            return operation.index
        case StartRun():
            return decode_json(text or "null")
    return Decision(**decode_json(text or "{}")) if row.kind == "approval" else None


def comes_back(rows: Sequence[HistoryRow]) -> bool:
    """Whether these rows tell of something the run has done, not only of what it has carried from an earlier life."""
    return any(row.kind != RECEIVED_KIND for row in rows)


def replay(
    driver: Driver,
    rows: Sequence[HistoryRow],
    *,
    run_id: str,
    begun_at: int,
    resumed: bool,
    retries: Sequence[HistoryRow] = (),
) -> None:
    """Begin a driver and deliver `rows` in order; raises `Nondeterministic` where it asks otherwise.

    `resumed`: an earlier life of the run may have come further than its rows tell; if not, nobody has been behind the
    last of them with the code of before. `retries`: where it was retried.
    """
    driver.patches = {row.name: True for row in rows if row.kind == "patch"}
    driver.is_replaying = resumed or comes_back(rows)
    # Chance and time of what a fork has of other runs were theirs.
    forks = [row for row in rows if row.kind == FORK_KIND]
    runs = [*((row.name, row.started_at) for row in forks), (driver.run_id, begun_at)]
    driver.run_id, begun_at = runs.pop(0)
    driver.begin(begun_at)
    if driver.refuses_input and driver.is_replaying:  # what has begun with it may be under way, or is to be undone
        found = f"an input that it does not fit: {driver.outcome and driver.outcome.error}"
        raise Nondeterministic(run_id, 0, "the input that it began with", found)
    last = None if resumed else next((row for row in reversed(rows) if row.kind not in UNASKED), None)
    for row in sorted([*rows, *retries], key=attrgetter("position")) if retries else rows:
        driver.is_replaying = driver.is_replaying and row is not last
        if row.kind == RETRY_KIND:
            driver.begin_again(row.ended_at)
            continue
        if row.kind == FORK_KIND:
            driver.go_on_as(*runs.pop(0), undoes_all=not leaves_the_past(row))
            continue
        if row.kind in MARKS:
            continue
        if row.kind == "cancel":
            driver.cancel(decode_json(row.meta or "{}").get("reason", "cancelled"), row.ended_at)
            continue
        pending = driver.pending.get(row.operation)
        if pending is None or not fits(pending, row):
            raise Nondeterministic(run_id, row.position, describe_row(row), describe_code(driver, row, pending))
        try:
            outcome = outcome_of(pending.operation, row)
        except Exception as error:
            found = f"{describe_code(driver, row, pending)}, which cannot be made of that row: {error}"
            raise Nondeterministic(run_id, row.position, describe_row(row), found) from error
        driver.deliver(row.operation, outcome, row.ended_at)
    driver.is_replaying = False


def leaves_the_past(row: HistoryRow) -> bool:
    """Whether a fork, which the row tells of, leaves it to the run it was made of to undo what that has done."""
    return row.kind == FORK_KIND and row.meta is not None


def tags_at_start(run: RunRecord, rows: Sequence[HistoryRow]) -> str | None:
    """The tags that a run began with, whatever it has made of them since: what its workflow sees on every replay."""
    for row in rows:
        if row.kind == "tags" and row.status == "completed":
            before: str | None = decode_json(row.meta or "{}").get("before")
            return before
    return run.tags


def fits(pending: Pending, row: HistoryRow) -> bool:
    """Whether a row is of what the code asks for in its place."""
    operation = pending.operation
    if operation.kind != row.kind or operation.name != row.name:
        return False
    if isinstance(operation, RaceWon):
        return bool(decode_json(row.meta or "{}").get("index") == operation.index)
    return True


def describe_row(row: HistoryRow) -> str:
    """What the history has, for people."""
    return f"operation {row.operation}: {row.kind} {row.name!r} ({row.status})"


def describe_code(driver: Driver, row: HistoryRow, pending: Pending | None) -> str:
    """What the code asks for instead, for people."""
    if pending is not None:
        return f"operation {row.operation}: {pending.operation.kind} {pending.operation.name!r}"
    if driver.outcome is not None:
        return "no such operation: the function has already ended"
    asked = [f"{p.path}: {p.operation.kind} {p.operation.name!r}" for p in driver.pending.values()]
    return f"no such operation; it waits for {', '.join(asked) or 'nothing'}"
