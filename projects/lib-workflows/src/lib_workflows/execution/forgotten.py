"""What is written of a run that it does not go on with: nobody need decide it, wait for it or try it again.

Its code, changed meanwhile, may ask for it no more; or an earlier life ended before it could take it back. But where
others have begun to answer, the code must go on with what they were asked.
"""

from typing import TYPE_CHECKING, Any

from lib_events.statement import Write
from lib_workflows.authoring.operation import AskApproval, Operation, WaitEvent
from lib_workflows.errors import Nondeterministic
from lib_workflows.execution.driver import Driver
from lib_workflows.execution.history import describe_code, describe_row, fits
from lib_workflows.execution.wait_effects import close_approval
from lib_workflows.runs.record import Stored
from lib_workflows.statements import DELETE_ATTEMPT, DELETE_EVENT_WAIT, HistoryRow

if TYPE_CHECKING:
    from lib_workflows.execution.executor import Executor


def check_begun(driver: Driver, run_id: str, stored: Stored) -> None:
    """Raise `Nondeterministic` unless the code asks for what the run has begun with others and what has no row yet.

    That is the children it has started, and, where it still asks a person, the question: their answers would be taken
    for those to something else. A question that the code asks no more is closed, see `close_forgotten`.
    """
    ended = {row.operation for row in stored.history} if stored.children or stored.approvals else frozenset()
    children = [(path, "child", child.workflow, "started") for path, child in stored.children.items()]
    questions = [(path, "approval", name, "asked") for path, name in stored.approvals.items() if _asks(driver, path)]
    for path, kind, name, status in (*children, *questions):
        row = HistoryRow(run_id, stored.last_position + 1, path, kind, name, status, 1, 0, 0)
        pending = driver.pending.get(path)
        if path not in ended and (pending is None or not fits(pending, row)):
            raise Nondeterministic(run_id, row.position, describe_row(row), describe_code(driver, row, pending))


def close_forgotten(executor: "Executor") -> None:
    """Close the approvals, waits for events and attempts that the database has and that nothing in the run is about."""
    for path in executor.stored.open_approvals:
        if not _asks(executor.driver, path):
            close_approval(executor, path, f"{path}/withdrawal", lambda _: executor.turn())
    for path in executor.stored.event_waits:
        if not _asks(executor.driver, path, WaitEvent):
            executor.ledger.add(Write(DELETE_EVENT_WAIT, (executor.run.id, path)))
    for path, attempted in list(executor.attempts.items()):
        pending = executor.driver.pending.get(path)
        if pending is None or attempted.name not in (None, pending.operation.name):
            del executor.attempts[path]
            executor.stored.pauses.pop(path, None)
            executor.ledger.add(Write(DELETE_ATTEMPT, (executor.run.id, path)))


def _asks(driver: Driver, path: str, kind: type[Operation[Any]] = AskApproval) -> bool:
    pending = driver.pending.get(path)
    return pending is not None and isinstance(pending.operation, kind)
