"""How each kind of operation is begun, stopped and forgotten: the table of what a workflow can ask for."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from lib_events.database import DatabaseError
from lib_events.event import EncodedEvent
from lib_events.statement import Write
from lib_workflows.authoring.operation import (
    AskApproval,
    Deadline,
    Operation,
    Publish,
    RaceWon,
    Reply,
    RunChild,
    RunStep,
    RunTransaction,
    RunUndo,
    SetTags,
    SetView,
    Sleep,
    StartRun,
    WaitEvent,
    WaitSignal,
    WaitUpdate,
)
from lib_workflows.errors import ChildrenTooDeep, TagsInvalid, WorkflowsError
from lib_workflows.execution.completion import Completion, bare_row, complete_cancelled, completed, failed
from lib_workflows.execution.driver import Pending
from lib_workflows.execution.event_effects import begin_wait_event, forget_event_wait, take_event, undelivered
from lib_workflows.execution.history import outcome_of
from lib_workflows.execution.named_starts import start_named_child, start_named_run
from lib_workflows.execution.step_effects import begin_step, begin_undo
from lib_workflows.execution.transaction_effects import begin_transaction
from lib_workflows.execution.wait_effects import (
    begin_approval,
    begin_sleep,
    begin_wait_signal,
    take_letter,
    withdraw_approval,
)
from lib_workflows.runs.commands import RUNS_TOPIC
from lib_workflows.runs.record import Child, Message, event_id, is_child_of
from lib_workflows.statements import ANSWER_UPDATE, SET_VIEW
from lib_workflows.steps.attempt import Attempt
from lib_workflows.values.codec import encode_json

if TYPE_CHECKING:
    from lib_workflows.execution.executor import Executor

logger = logging.getLogger(__name__)

DEEPEST = 100  # children of children: past it, it must be a recursion without an end


def begin(executor: "Executor", pending: Pending) -> None:
    """Begin an operation. One whose cancellation came first begins nothing, and is stopped then."""
    if pending.answered:
        return
    try:
        BEGIN[type(pending.operation)](executor, pending)
    except DatabaseError:
        raise
    except Exception as error:
        # What cannot be begun now cannot be begun later either: the workflow must hear of it.
        if not isinstance(error, WorkflowsError):
            logger.exception("operation %s of run %s cannot begin", pending.path, executor.run.id)
        executor.complete(failed(pending, error))


# Stopping


def stop(executor: "Executor", pending: Pending) -> None:
    """Ask an operation under way to stop; its row is still awaited."""
    path = pending.path
    running = executor.running.get(path)
    if isinstance(pending.operation, RunChild):
        executor.home.kinship.cancel_child(executor, path)
    elif isinstance(running, Attempt):
        running.stop()
    elif running is None:
        complete_cancelled(executor, pending, ran=_may_have_run(executor, pending))


def _may_have_run(executor: "Executor", pending: Pending) -> bool:
    """Whether something that is not under way may have had its effect all the same: in an attempt before, or an
    earlier life. A transaction has not: it would have its row.
    """
    path = pending.path
    return pending.operation.kind == "step" and (path in executor.attempts or path in executor.replayed)


def forget(executor: "Executor", pending: Pending) -> None:
    """Nobody waits for this any more."""
    executor.disarm(pending.path)
    if isinstance(pending.operation, WaitEvent):
        forget_event_wait(executor, pending)
    elif isinstance(pending.operation, AskApproval):
        withdraw_approval(executor, pending)


# Messages


def take_message(executor: "Executor", message: Message) -> None:
    """Hand a message of the inbox to whoever waits for it, or keep it."""
    if message.kind == "event":
        take_event(executor, message)
    else:
        take_letter(executor, message)


def give_back(executor: "Executor", completion: Completion) -> None:
    """Its operation waits no more: what it took from the mailbox is for somebody else."""
    if isinstance(completion.pending.operation, WaitEvent):
        undelivered(executor, completion)
    elif completion.message is not None:
        take_message(executor, completion.message)


# Children


def begin_child(executor: "Executor", pending: Pending) -> None:
    """Start the child, unless an earlier life did."""
    operation = pending.operation
    assert isinstance(operation, RunChild)  # noqa: S101 - the table says so
    child = executor.children.get(pending.path)
    if child is not None and child.has_ended:
        child_ended(executor, pending.path, child)
    elif child is not None:
        if pending.cancelling is not None:
            executor.home.kinship.cancel_child(executor, pending.path)
    elif pending.cancelling is not None:
        complete_cancelled(executor, pending, ran=False)
    elif executor.run.depth >= DEEPEST:
        executor.complete(failed(pending, ChildrenTooDeep(operation.name, DEEPEST)))
    elif operation.options.id is not None:
        start_named_child(executor, pending, operation, partial(begin_child, executor, pending))
    else:
        executor.home.kinship.start_child(executor, pending.path, operation)


def child_ended(executor: "Executor", operation: str, child: Child) -> None:
    """The child of an operation has ended, unless it is the one that an earlier life has started there: that may be
    retried, and end once more, before this life has come to the operation.
    """
    if not is_child_of(child, executor.run.id, operation, executor.stored.life):
        return
    executor.children[operation] = child
    pending = executor.driver.pending.get(operation)
    if pending is None or not isinstance(pending.operation, RunChild) or operation in executor.running:
        return
    status = "completed" if child.status == "completed" else "failed"
    row = bare_row(pending, status, output=child.output, error=child.error)
    try:
        outcome = outcome_of(pending.operation, row)
    except Exception as error:  # noqa: BLE001 - a result that cannot be read fails the operation, as a step's does
        completion = failed(pending, error)
        # The child has done what it does: only what it gave is not known.
        completion.outcome.effect, completion.meta = "unknown", encode_json({"ran": True})
        executor.complete(completion)
        return
    executor.complete(Completion(pending, outcome, status=status, output=child.output, error=child.error))


# What ends at once


def begin_start(executor: "Executor", pending: Pending) -> None:
    """Start another run with the row: both or neither."""
    operation = pending.operation
    assert isinstance(operation, StartRun)  # noqa: S101 - the table says so
    if operation.options.id is not None:
        start_named_run(executor, pending, operation)
        return
    start = executor.home.kinship.start_apart(executor, pending.path, operation)
    completion = completed(pending, start.run_id, encode_json(start.run_id))
    completion.input = start.input
    completion.writes = (start.write,)
    completion.on_delivery = partial(_tell_of_start, executor, start.event)
    executor.complete(completion)


def _tell_of_start(executor: "Executor", event: EncodedEvent) -> None:
    executor.ledger.tell(event)
    executor.ledger.notify(RUNS_TOPIC)  # it is queued, for whoever can take it


def begin_tags(executor: "Executor", pending: Pending) -> None:
    """Change the run's row with the row."""
    operation = pending.operation
    assert isinstance(operation, SetTags)  # noqa: S101 - the table says so
    completion = completed(pending, None)
    completion.on_delivery = partial(_set_tags, executor, completion, operation.tags)
    executor.complete(completion)


def _set_tags(executor: "Executor", completion: Completion, tags: Mapping[str, str | None]) -> None:
    before = executor.run.tags
    try:
        executor.set_tags(tags)
    except TagsInvalid as error:
        refused = failed(completion.pending, error)
        completion.outcome, completion.status, completion.error = refused.outcome, refused.status, refused.error
        return
    completion.input, completion.meta = encode_json(tags), encode_json({"before": before})


def begin_publish(executor: "Executor", pending: Pending) -> None:
    """Append the event with the row."""
    operation = pending.operation
    assert isinstance(operation, Publish)  # noqa: S101 - the table says so
    # Not by the chance of the workflow: a retry, or a fork at this very place, says another event.
    said = replace(operation.event, id=event_id(executor.run.id, pending.path, executor.stored.life))
    completion = completed(pending, None)
    completion.input = encode_json(said.data)
    completion.on_delivery = partial(executor.ledger.tell, said)
    executor.complete(completion)


def begin_view(executor: "Executor", pending: Pending) -> None:
    """Store the view with the row."""
    operation = pending.operation
    assert isinstance(operation, SetView)  # noqa: S101 - the table says so
    completion = completed(pending, None)
    completion.input = operation.value
    completion.on_delivery = partial(_set_view, executor, operation)
    executor.complete(completion)


def _set_view(executor: "Executor", operation: SetView) -> None:
    position = executor.position + 1  # of its row: of two in one commit the later one counts
    row = (executor.run.id, operation.name, operation.value, position, executor.clock_micros())
    executor.ledger.add(Write(SET_VIEW, row))


def begin_reply(executor: "Executor", pending: Pending) -> None:
    """Answer the update with the row."""
    operation = pending.operation
    assert isinstance(operation, Reply)  # noqa: S101 - the table says so
    status = "rejected" if operation.rejected else "completed"
    completion = completed(pending, None)
    # A fork has been told of updates of the run it was made of: they are not its own to answer.
    row = (status, operation.text, executor.clock_micros(), operation.update_id, executor.run.id)
    completion.writes = (Write(ANSWER_UPDATE, row),)
    executor.complete(completion)
    executor.home.answered(executor, operation.update_id)


def begin_race_won(executor: "Executor", pending: Pending) -> None:
    """Write down which branch of a race was first."""
    operation = pending.operation
    assert isinstance(operation, RaceWon)  # noqa: S101 - the table says so
    completion = completed(pending, operation.index)
    completion.meta = encode_json({"index": operation.index})
    executor.complete(completion)


BEGIN: dict[type[Operation[Any]], Callable[["Executor", Pending], None]] = {
    RunStep: begin_step,
    RunTransaction: begin_transaction,
    RunChild: begin_child,
    RunUndo: begin_undo,
    Sleep: begin_sleep,
    Deadline: begin_sleep,
    WaitSignal: begin_wait_signal,
    WaitUpdate: begin_wait_signal,
    WaitEvent: begin_wait_event,
    AskApproval: begin_approval,
    Publish: begin_publish,
    SetView: begin_view,
    SetTags: begin_tags,
    StartRun: begin_start,
    Reply: begin_reply,
    RaceWon: begin_race_won,
}
