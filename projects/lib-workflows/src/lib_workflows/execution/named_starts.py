"""Starts of runs under ids that the workflow has chosen: transactions, for somebody else may have such an id."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lib_events.database import Connection, is_database_failure
from lib_workflows.authoring.operation import RunChild, StartRun
from lib_workflows.execution.completion import Completion, complete_cancelled, completed, failed
from lib_workflows.execution.driver import Pending
from lib_workflows.execution.transaction_effects import fence_of_run, queue_call
from lib_workflows.runs import commands
from lib_workflows.runs.commands import StartRequest
from lib_workflows.values.codec import encode_json

if TYPE_CHECKING:
    from lib_workflows.execution.executor import Executor


def start_named_run(executor: "Executor", pending: Pending, operation: StartRun) -> None:
    """Start the run of `ctx.start`, or find the one that is meant, in one transaction with the history's row."""
    request = executor.home.kinship.request_of(executor, pending.path, operation, executor.clock_micros())

    def call(connection: Connection) -> Completion:
        run_id, _ = commands.start(connection, request, executor.clock_micros())
        completion = completed(pending, run_id, encode_json(run_id))
        completion.input = request.input
        return completion

    queue_call(executor, pending, call)


def start_named_child(
    executor: "Executor", pending: Pending, operation: RunChild[Any], then: Callable[[], None]
) -> None:
    """Start the child once everything before it is durable, then call `then`: it is among the executor's children."""
    request = executor.home.kinship.request_of(executor, pending.path, operation, executor.clock_micros())

    def effect() -> None:
        if executor.driver.pending.get(pending.path) is not pending or executor.ended:
            return
        if pending.cancelling is not None:
            complete_cancelled(executor, pending, ran=False)
        else:
            executor.running[pending.path] = executor.home.spawn(_start(executor, pending, request, then))

    executor.when_durable(effect)


async def _start(executor: "Executor", pending: Pending, request: StartRequest, then: Callable[[], None]) -> None:
    path, fence = pending.path, fence_of_run(executor.fence, executor.run)
    try:
        child = await executor.home.kinship.start_named(request, fence)
    except Exception as error:  # noqa: BLE001 - whatever it is, the workflow or the engine must hear of it
        if executor.ended:
            return  # it was loaded again meanwhile, and another life of it does this
        if is_database_failure(error):
            executor.home.run_lost(executor, error)
            return
        executor.running.pop(path, None)
        executor.complete(failed(pending, error))
        return
    if executor.ended:
        return
    executor.running.pop(path, None)
    executor.children.setdefault(path, child)  # it may have ended, and have said so before this
    then()
    executor.turn()
