"""What is written of a run that it does not go on with: nobody need decide it, wait for it or try it again.

Its code, changed meanwhile, may ask for it no more; or an earlier life ended before it could take it back.
"""

from typing import TYPE_CHECKING

from lib_events.statement import Write
from lib_workflows.authoring.operation import AskApproval, Operation, WaitEvent
from lib_workflows.execution.wait_effects import close_approval
from lib_workflows.statements import DELETE_ATTEMPT, DELETE_EVENT_WAIT

if TYPE_CHECKING:
    from lib_workflows.execution.executor import Executor


def close_forgotten(executor: "Executor") -> None:
    """Close the approvals, waits for events and attempts that the database has and that nothing in the run is about."""
    for path in executor.stored.open_approvals:
        if not _asks(executor, path, AskApproval):
            close_approval(executor, path, f"{path}/withdrawal", lambda _: executor.turn())
    for path in executor.stored.event_waits:
        if not _asks(executor, path, WaitEvent):
            executor.ledger.add(Write(DELETE_EVENT_WAIT, (executor.run.id, path)))
    for path in executor.attempts:
        if path not in executor.driver.pending:
            executor.ledger.add(Write(DELETE_ATTEMPT, (executor.run.id, path)))


def _asks[O: Operation[object]](executor: "Executor", path: str, kind: type[O]) -> bool:
    pending = executor.driver.pending.get(path)
    return pending is not None and isinstance(pending.operation, kind)
