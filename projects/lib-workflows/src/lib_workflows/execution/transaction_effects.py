"""Transactions: functions that write to the database exactly once, in the commit of their history row."""

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lib_events.database import Connection, is_database_failure
from lib_events.statement import Fence, Write
from lib_workflows.authoring.operation import RunTransaction, RunUndo
from lib_workflows.errors import LifeOver
from lib_workflows.execution.completion import Completion, complete_cancelled, completed, failed
from lib_workflows.execution.driver import Pending
from lib_workflows.execution.history import transaction_signature
from lib_workflows.execution.undoing import check_undone
from lib_workflows.exits import calling
from lib_workflows.run_logs import Place, logged_at
from lib_workflows.runs.record import RunRecord
from lib_workflows.statements import APPEND_HISTORY, DELETE_ATTEMPT

if TYPE_CHECKING:
    from lib_workflows.execution.executor import Executor

FENCE_OF_RUN = """
    SELECT 1 FROM workers, runs
    WHERE workers.id = $1 AND workers.epoch = $2 AND runs.id = $3 AND runs.earlier_lives = $4
    FOR KEY SHARE
"""


def begin_transaction(executor: "Executor", pending: Pending) -> None:
    """Run a transaction function, once everything before it is durable."""
    operation = pending.operation
    assert isinstance(operation, RunTransaction)  # noqa: S101 - the table says so
    queue_transaction(executor, pending, operation.function, operation.args)


def queue_transaction(
    executor: "Executor",
    pending: Pending,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    tries_again: Callable[[Exception], bool] = lambda _: False,
) -> None:
    """Run `function(connection, *args)` once everything before it is durable; one at a time of a run.

    When it fails, `tries_again` says whether that is not its end, and sees to the next attempt.
    """

    def call(connection: Connection) -> Completion:
        value = calling(function, connection, *args)
        if isinstance(pending.operation, RunUndo):
            check_undone(pending.operation, value)
            return _as_attempted(executor, completed(pending, None))
        signature = transaction_signature(function)
        text, settled = signature.result.settle(value)
        completion = completed(pending, settled, text)
        completion.input = signature.arguments.encode(args)
        return completion

    queue_call(executor, pending, call, tries_again)


def queue_call(
    executor: "Executor",
    pending: Pending,
    call: Callable[[Connection], Completion],
    tries_again: Callable[[Exception], bool] = lambda _: False,
) -> None:
    """The same with what makes the operation's end; its row is written in the same transaction."""

    def effect() -> None:
        if executor.driver.pending.get(pending.path) is not pending or executor.ended:
            return
        if pending.cancelling is not None:
            complete_cancelled(executor, pending, ran=False)
        elif executor.transaction is not None:
            executor.transactions.append(effect)
        else:
            executor.transaction = pending.path
            transacting = _transact(executor, pending, call, tries_again)
            executor.running[pending.path] = executor.surroundings.copy().run(executor.home.spawn, transacting)

    executor.when_durable(effect)


def _as_attempted(executor: "Executor", completion: Completion) -> Completion:
    """The end of an undo, with how often it was tried."""
    path = completion.pending.path
    last = executor.attempts.get(path)
    if last is not None:
        completion.attempt = last.number + 1
        completion.writes = (Write(DELETE_ATTEMPT, (executor.run.id, path)),)
    return completion


async def _transact(
    executor: "Executor",
    pending: Pending,
    call: Callable[[Connection], Completion],
    tries_again: Callable[[Exception], bool],
) -> None:
    """Run a transaction function and its row in one transaction; no other row of the run comes between."""
    if executor.ledger.closed:
        return
    started_at = executor.clock_micros()
    executor.position += 1
    position = executor.position

    def function(connection: Connection) -> Completion:
        if executor.ended:
            raise LifeOver(executor.run.id)
        with logged_at(Place(executor.log, pending.path, 1)):
            completion = call(connection)
        completion.started_at, completion.position = started_at, position
        completion.ended_at = executor.clock_micros()  # the workflow hears of it later, and must not see that
        connection.write(Write(APPEND_HISTORY, executor.row_of(completion, position, completion.ended_at)))
        return completion

    try:
        completion = await executor.home.database.transact(function, fence=fence_of_run(executor.fence, executor.run))
    except Exception as error:  # noqa: BLE001 - what the function raises is its result
        if executor.ended:
            return  # it was loaded again meanwhile, and another life of it does this
        if is_database_failure(error) or _is_written_already(error):
            executor.home.run_lost(executor, error)
            return
        if tries_again(error):
            return
        completion = _as_attempted(executor, failed(pending, error))
        completion.started_at = started_at
    executor.transacted(completion)


def fence_of_run(fence: Fence | None, run: RunRecord) -> Fence | None:
    """A life's fence, and the run's: it must not have gone on as new meanwhile, where its place is free again."""
    return None if fence is None else Fence(FENCE_OF_RUN, (*fence.parameters, run.id, run.earlier_lives))


def _is_written_already(error: Exception) -> bool:
    """Whether the history has this row: a commit that nobody heard of. Loaded again, the run finds it.

    Our statement runs on the driver itself: what a function raises, whatever it says, is no error of that.
    """
    if isinstance(error, sqlite3.IntegrityError):
        return "failed: history." in str(error)
    return getattr(error, "table_name", None) == "history"
