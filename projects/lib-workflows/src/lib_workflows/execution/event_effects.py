"""Waiting for events: a run looks back, then the matcher tells it; each event reaches it once per (type, match).

Several branches of a run may wait for the same (type, match). Their events are handed out one by one, in the
order of the log: while one is on its way the others look no further, while one looks the others look themselves,
and one that finds nobody waiting any more (its branch was cancelled meanwhile) is looked for again by the others.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lib_events.database import is_database_failure
from lib_events.statement import Write
from lib_workflows.authoring.operation import WaitEvent
from lib_workflows.events.waits import Looked, Wait
from lib_workflows.execution.completion import Completion, failed
from lib_workflows.execution.driver import Pending
from lib_workflows.execution.wait_effects import answer, arm, event_key, had_until, timed_out
from lib_workflows.runs.record import Message
from lib_workflows.statements import DELETE_EVENT_WAIT, DELETE_MESSAGE
from lib_workflows.values.codec import canonical_json, decode_json

if TYPE_CHECKING:
    from lib_workflows.execution.executor import Executor


def begin_wait_event(executor: "Executor", pending: Pending) -> None:
    """Look back for the event; if there is none yet, let the matcher know who waits."""
    operation = pending.operation
    assert isinstance(operation, WaitEvent)  # noqa: S101 - the table says so
    _look_again(executor, pending)
    arm(executor, pending, operation.timeout_seconds, lambda: _end_late(executor, pending))


def _end_late(executor: "Executor", pending: Pending) -> None:
    """Nothing has come in time; but what was there before is found, however long the look takes."""
    pending.is_late = True
    if _looks(executor, pending):
        return
    completion = timed_out(pending)
    completion.meta = had_until(pending, max(pending.looked_until, executor.received.get(event_key(pending), 0)))
    completion.writes = (Write(DELETE_EVENT_WAIT, (executor.run.id, pending.path)),)
    executor.complete(completion)


def forget_event_wait(executor: "Executor", pending: Pending) -> None:
    """Take the wait back from the matcher."""
    executor.ledger.add(Write(DELETE_EVENT_WAIT, (executor.run.id, pending.path)))


# Looking back


def _look_again(executor: "Executor", pending: Pending) -> None:
    pending.look_again = True
    executor.when_durable(lambda: _look_if_asked(executor, pending))


def _look_if_asked(executor: "Executor", pending: Pending) -> None:
    if pending.look_again and pending.path not in executor.running and _still_waits(executor, pending):
        pending.look_again = False
        executor.running[pending.path] = executor.home.spawn(_look(executor, pending))


def _still_waits(executor: "Executor", pending: Pending) -> bool:
    return executor.driver.pending.get(pending.path) is pending and not pending.answered and not executor.ended


async def _look(executor: "Executor", pending: Pending) -> None:
    try:
        looked = await _register(executor, pending)
    except Exception as error:  # noqa: BLE001 - told to whoever can do something about it
        executor.running.pop(pending.path, None)
        if is_database_failure(error):
            executor.home.run_lost(executor, error)
        else:
            executor.complete(failed(pending, error))
        return
    executor.running.pop(pending.path, None)
    if executor.ended:
        return
    if looked.waits:
        pending.looked_until = looked.reached
    if not _still_waits(executor, pending):
        forget_event_wait(executor, pending)
    elif looked.payload is not None:
        _came(executor, pending, Message(0, "event", pending.path, looked.payload, str(looked.reached)))
    elif pending.look_again:
        _look_again(executor, pending)
    elif pending.is_late:
        _end_late(executor, pending)
    executor.turn()


async def _register(executor: "Executor", pending: Pending) -> Looked:
    """Look a part of the log at a time, until the event is found or the matcher knows who waits."""
    name, match = event_key(pending)
    after = executor.received.get((name, match))
    while True:
        wait = Wait(executor.run.id, pending.path, name, match, after)
        looked = await executor.home.event_looks.look(wait, executor.fence)
        if looked.payload is not None or looked.waits or not _still_waits(executor, pending):
            return looked
        after = looked.reached


# What has come


def take_event(executor: "Executor", message: Message) -> None:
    """Hand an event to the operation it is for; when that waits no more, let the others look for it."""
    pending = executor.driver.pending.get(message.name)
    if pending is None or not isinstance(pending.operation, WaitEvent) or pending.answered:
        _let_go(executor, message)
        for waiting in list(_waiting(executor)):
            _look_again(executor, waiting)
    elif _somebody_looks(executor, event_key(pending)):
        # An event before this one may have been let go: who looks finds the first.
        _let_go(executor, message)
        _look_again(executor, pending)
    elif _is_for_an_earlier_life(pending, message):
        _let_go(executor, message)
    else:
        _came(executor, pending, message)


def _is_for_an_earlier_life(pending: Pending, message: Message) -> bool:
    """Whether the matcher found it for what waited at that place before: maybe for something else.

    What has not looked yet, because the run has begun again or has come back into memory, maybe with other code, looks
    itself; what has looked is told of later events only.
    """
    return pending.looked_until < 0 or int(message.reference or 0) <= pending.looked_until


def _somebody_looks(executor: "Executor", key: tuple[str, str]) -> bool:
    return any(_looks(executor, rival) for rival in _waiting(executor, key))


def _looks(executor: "Executor", pending: Pending) -> bool:
    return pending.look_again or pending.path in executor.running


def _came(executor: "Executor", pending: Pending, message: Message) -> None:
    key = event_key(pending)
    if any(rival.answered for rival in _waiting(executor, key)):
        # One by one: when that answer is delivered, this one looks further.
        _let_go(executor, message)
        pending.look_again = True
    elif int(message.reference or 0) <= executor.received.get(key, 0):
        _let_go(executor, message)
        _look_again(executor, pending)
    else:
        answer(executor, pending, message)


def delivered(executor: "Executor", completion: Completion) -> None:
    """The wait has ended: who had to stand back for it looks further."""
    pending = completion.pending
    remember(executor, pending.operation.name, completion.meta)
    for waiting in list(_waiting(executor, event_key(pending))):
        if waiting.look_again:
            _look_again(executor, waiting)


def undelivered(executor: "Executor", completion: Completion) -> None:
    """What came is for an operation that waits no more: the others look for it."""
    if completion.message is not None:
        _let_go(executor, completion.message)
    for waiting in list(_waiting(executor, event_key(completion.pending))):
        _look_again(executor, waiting)


def remember(executor: "Executor", name: str, meta: str | None) -> None:
    """Keep up to where the run has had every event of a (type, match)."""
    if meta is not None:
        told = decode_json(meta)
        key = (name, canonical_json(decode_json(told["match"])))  # rows of before: in the order of then
        executor.received[key] = max(told["position"], executor.received.get(key, 0))
        executor.waited.add(key)


def _waiting(executor: "Executor", key: tuple[str, str] | None = None) -> Iterator[Pending]:
    for pending in executor.driver.pending.values():
        if isinstance(pending.operation, WaitEvent) and (key is None or event_key(pending) == key):
            yield pending


def _let_go(executor: "Executor", message: Message) -> None:
    if message.number:
        executor.ledger.add(Write(DELETE_MESSAGE, (executor.run.id, message.number)))
