"""A parked run that is cancelled: what it did is undone as far as the code of today still says how.

The code no longer fits the history, so the function cannot be driven to its end. Up to where it does fit, it has said
what undoes each of its operations. The function is dropped there; what is under way is asked to stop and awaited, and
what was done is undone, the last begun operation first. Of the operations behind that place the history says only the
name of what undoes them: each gets the row of an undo that failed, and a line in the run's log.

Only a cancellation of a run that is parked asks for this. One that comes before leaves the run parked: its code may be
mended, and then all of it is undone.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lib_events.statement import Write
from lib_workflows.errors import Cancelled, UndoUnknown
from lib_workflows.execution.driver import Outcome, Pending
from lib_workflows.execution.history import CANCEL_OPERATION, fits, leaves_the_past, outcome_of
from lib_workflows.execution.undoing import announce
from lib_workflows.execution.wait_effects import reason_of
from lib_workflows.reading.undo_views import undo_of
from lib_workflows.runs.commands import PARKED
from lib_workflows.runs.record import UNDO_SUFFIX
from lib_workflows.statements import APPEND_HISTORY, HistoryRow
from lib_workflows.values.codec import decode_json, encode_json
from lib_workflows.values.failure import encode_record, record_of

if TYPE_CHECKING:
    from lib_workflows.execution.executor import Executor

logger = logging.getLogger(__name__)


def reason_to_salvage(executor: "Executor") -> str | None:
    """Why somebody has cancelled the run although it is parked; None: nobody has."""
    stored = executor.stored
    asked = [message.payload for message in stored.messages if message.kind == "cancel"]
    asked += [row.meta for row in stored.history if row.kind == "cancel"]
    return next((reason_of(text) for text in asked if text and decode_json(text).get(PARKED)), None)


def salvage(executor: "Executor", reason: str) -> None:
    """Give up the function where its history does not fit, and begin to undo."""
    rows, driver = executor.stored.history, executor.driver
    _settle_what_has_ended(executor, {row.operation: row for row in rows})
    undone = {row.operation.removesuffix(UNDO_SUFFIX) for row in rows if row.kind == "undo"} | _of_others(rows)
    known = {*driver.undo_plan, *undone}
    lost = [row for row in rows if undo_of(row) is not None and row.operation not in known]
    if not executor.is_cancelled:
        executor.is_cancelled, executor.cancel_reason = True, encode_json({"reason": reason, PARKED: True})
        executor.mark(CANCEL_OPERATION, "cancel", "cancel", executor.cancel_reason)
    error = Cancelled(reason)
    plan = [path for path in driver.undo_plan if path not in undone]
    announce(executor, [*(row.operation for row in reversed(lost)), *plan], error)
    executor.log.is_replaying = False  # what is said from here on is new
    for row in reversed(lost):
        _tell_of_lost(executor, row)
    _cancel_children(executor)
    driver.give_up(error, undone, executor.clock_micros())


def _of_others(rows: Sequence[HistoryRow]) -> set[str]:
    """What the run that this one is a fork of has done, and undoes itself."""
    until = max((row.position for row in rows if leaves_the_past(row)), default=0)
    return {row.operation for row in rows if row.position < until}


def _settle_what_has_ended(executor: "Executor", rows: Mapping[str, HistoryRow]) -> None:
    """What has a row, also behind the place where the function stands, is not under way."""
    for pending in list(executor.driver.pending.values()):
        row = rows.get(pending.path)
        if row is not None:
            executor.driver.settle(pending, _outcome(pending, row))


def _outcome(pending: Pending, row: HistoryRow) -> Outcome:
    if not fits(pending, row):
        return Outcome(effect="no")  # it was another operation that had its place
    try:
        return outcome_of(pending.operation, row)
    except Exception:  # noqa: BLE001 - whatever the type of its result says of it
        return Outcome(effect="unknown")


def _tell_of_lost(executor: "Executor", row: HistoryRow) -> None:
    undo = undo_of(row) or ""
    error, now = UndoUnknown(row.operation, undo), executor.clock_micros()
    executor.position += 1
    path, record = row.operation + UNDO_SUFFIX, encode_record(record_of(error, stack=False))
    told = HistoryRow(executor.run.id, executor.position, path, "undo", undo, "failed", 1, now, now, error=record)
    executor.ledger.add(Write(APPEND_HISTORY, told))
    executor.driver.context.run(logger.warning, "%s", error)


def _cancel_children(executor: "Executor") -> None:
    """Children that the code of today does not ask for are cancelled, too; the run does not end before they know."""
    for operation in executor.children:
        if operation not in executor.driver.pending:
            executor.home.kinship.cancel_child(executor, operation)
