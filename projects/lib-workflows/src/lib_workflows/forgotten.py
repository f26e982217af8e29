"""What a run asked for and its code, changed meanwhile, asks for no more: nobody need decide it or wait for it."""

from typing import TYPE_CHECKING

from lib_events.statement import Write
from lib_workflows.operation import AskApproval, Operation, WaitEvent
from lib_workflows.statements import DELETE_EVENT_WAIT
from lib_workflows.wait_effects import close_approval

if TYPE_CHECKING:
    from lib_workflows.executor import Executor


def close_forgotten(executor: "Executor") -> None:
    """Close the approvals and waits for events that are open in the database and that nothing in the run is about."""
    for path in executor.stored.open_approvals:
        if not _asks(executor, path, AskApproval):
            close_approval(executor, path, f"{path}/withdrawal", lambda _: executor.turn())
    for path in executor.stored.event_waits:
        if not _asks(executor, path, WaitEvent):
            executor.ledger.add(Write(DELETE_EVENT_WAIT, (executor.run.id, path)))


def _asks[O: Operation[object]](executor: "Executor", path: str, kind: type[O]) -> bool:
    pending = executor.driver.pending.get(path)
    return pending is not None and isinstance(pending.operation, kind)
