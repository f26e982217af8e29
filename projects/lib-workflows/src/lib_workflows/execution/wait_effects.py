"""Timers, signals, updates and approvals: the operations that wait, and the messages that answer them."""

import logging
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lib_events.statement import Write
from lib_events.texts import message_of
from lib_workflows.authoring.operation import AskApproval, Deadline, Sleep, WaitEvent, WaitSignal, WaitUpdate
from lib_workflows.errors import PayloadVersionUnknown, WaitTimeout
from lib_workflows.execution.completion import Completion, bare_row, completed, failed
from lib_workflows.execution.driver import Pending
from lib_workflows.execution.history import outcome_of
from lib_workflows.runs import commands
from lib_workflows.runs.lifecycle_events import APPROVAL_REQUESTED, time_text
from lib_workflows.runs.record import Message, approval_id
from lib_workflows.statements import ANSWER_UPDATE, DELETE_MESSAGE, INSERT_APPROVAL
from lib_workflows.values.codec import decode_json, encode_json

if TYPE_CHECKING:
    from lib_workflows.execution.executor import Executor

logger = logging.getLogger(__name__)

ENTRIES = 50  # of what a run waits for, for people

# Timers


def begin_sleep(executor: "Executor", pending: Pending) -> None:
    """Sleep, and the timer of a `ctx.timeout` block: both end by their timer."""
    operation = pending.operation
    assert isinstance(operation, Sleep | Deadline)  # noqa: S101 - the table says so
    arm(executor, pending, operation.seconds, lambda: executor.complete(completed(pending, None)))


def arm(executor: "Executor", pending: Pending, seconds: float | None, fire: Callable[[], None]) -> None:
    """Call `fire` so long after the operation began (None: never), unless it has ended."""
    if seconds is None:
        return

    def fired() -> None:
        if executor.driver.pending.get(pending.path) is pending:
            fire()

    executor.arm(pending.path, pending.begun_at + round(seconds * 1e6), fired)


def timed_out(pending: Pending) -> Completion:
    """The end of a wait for which nothing has come."""
    return failed(pending, WaitTimeout(f"{pending.operation.kind} {pending.operation.name}"))


# Waits


def begin_wait_signal(executor: "Executor", pending: Pending) -> None:
    """Take the oldest signal of that name, or wait."""
    operation = pending.operation
    assert isinstance(operation, WaitSignal | WaitUpdate)  # noqa: S101 - the table says so
    kind = "signal" if isinstance(operation, WaitSignal) else "update"
    while (message := executor.mailbox.take(kind, operation.name)) is not None:
        if _take(executor, pending, message):
            return
    arm(executor, pending, operation.timeout_seconds, lambda: executor.complete(timed_out(pending)))


def begin_approval(executor: "Executor", pending: Pending) -> None:
    """Ask, and wait for the decision; in a later life only wait."""
    operation = pending.operation
    assert isinstance(operation, AskApproval)  # noqa: S101 - the table says so
    due_at = None
    if operation.timeout_seconds is not None:
        due_at = pending.begun_at + round(operation.timeout_seconds * 1e6)
    if pending.path not in executor.stored.approvals:
        _ask(executor, pending, operation, due_at)
    arm(executor, pending, operation.timeout_seconds, lambda: _expire(executor, pending))


def _ask(executor: "Executor", pending: Pending, operation: AskApproval[Any], due_at: int | None) -> None:
    approval = approval_id(executor.run.id, pending.path, executor.stored.life)
    now = executor.clock_micros()
    about = encode_json(operation.about) if operation.about is not None else None
    run = executor.run
    row = (
        approval, run.id, pending.path, run.workflow, operation.name, operation.text, operation.to, about, now, due_at,
    )  # fmt: skip
    executor.ledger.add(Write(INSERT_APPROVAL, row))
    executor.ledger.tell(
        executor.teller.tell_approval(
            APPROVAL_REQUESTED,
            now,
            approval,
            name=operation.name,
            text=operation.text,
            to=operation.to,
            due_at=time_text(due_at) if due_at is not None else None,
            about=operation.about,
        )
    )


def _expire(executor: "Executor", pending: Pending) -> None:
    """Nobody decided in time, unless somebody does this very moment: the row of the approval decides."""

    def closed(expired: bool) -> None:  # noqa: FBT001 - what the row said
        if expired and not executor.ended:
            executor.complete(failed(pending, WaitTimeout(f"approval {pending.operation.name}")))
        else:
            executor.turn()

    executor.disarm(pending.path)
    close_approval(executor, pending.path, pending.path, closed)


def withdraw_approval(executor: "Executor", pending: Pending) -> None:
    """Nobody needs to decide any more. The run does not end before that is said: nobody would say it after a crash."""
    close_approval(executor, pending.path, f"{pending.path}/withdrawal", lambda _: executor.turn())


def close_approval(executor: "Executor", path: str, name: str, then: Callable[[bool], None]) -> None:
    """Close an approval once everything before is durable; under way as `name` until then."""
    approval = approval_id(executor.run.id, path, executor.stored.life)

    async def close() -> None:
        try:
            expired = await executor.home.database.transact(
                commands.expire, approval, executor.clock_micros(), fence=executor.fence
            )
        except Exception as error:  # noqa: BLE001 - loaded again, the run finds that it still has to do this
            executor.home.run_lost(executor, error)
            return
        executor.running.pop(name, None)
        then(expired)

    def begin() -> None:
        executor.running[name] = executor.home.spawn(close())

    executor.when_durable(begin)


# Messages


def take_letter(executor: "Executor", message: Message) -> None:
    """Hand a signal, update or decision to whoever waits for it, or keep it; begin a cancellation."""
    if message.kind == "cancel":
        executor.request_cancel(reason_of(message.payload or ""), message.number)
        return
    for pending in executor.driver.pending.values():
        if not pending.answered and _waits_for(executor, pending, message):
            _take(executor, pending, message)
            return
    if message.kind in ("signal", "update"):
        executor.mailbox.keep(message)
    else:
        # For an operation that waits no more.
        executor.ledger.add(Write(DELETE_MESSAGE, (executor.run.id, message.number)))


def _take(executor: "Executor", pending: Pending, message: Message) -> bool:
    """End a wait by a message, unless that is a signal or update which does not fit: whoever may write to a run must
    not be able to fail it, so the wait goes on without."""
    operation = pending.operation
    if isinstance(operation, WaitSignal | WaitUpdate):
        declared = operation.signal if isinstance(operation, WaitSignal) else operation.update
        try:
            declared.codec.decode(message.payload or "null")
        except PayloadVersionUnknown:  # another release could read it: not the sender's fault, so nothing is dropped
            pass
        except Exception as error:  # noqa: BLE001 - whatever the payload's type says of it
            _refuse(executor, message, error)
            return False
    answer(executor, pending, message)
    return True


def _refuse(executor: "Executor", message: Message, error: Exception) -> None:
    """Forget a message that does not fit: the run's log says so, and of an update its sender hears it, too."""
    if message.reference is not None:  # of an update
        rejected = ("rejected", message_of(error), executor.clock_micros(), message.reference, executor.run.id)
        executor.ledger.add(Write(ANSWER_UPDATE, rejected))
        executor.home.answered(executor, message.reference)
    executor.ledger.add(Write(DELETE_MESSAGE, (executor.run.id, message.number)))
    executor.driver.context.run(logger.warning, "%s; the %s is dropped", message_of(error), message.kind)


def _waits_for(executor: "Executor", pending: Pending, message: Message) -> bool:
    operation = pending.operation
    match message.kind:
        case "signal":
            return isinstance(operation, WaitSignal) and operation.name == message.name
        case "update":
            return isinstance(operation, WaitUpdate) and operation.name == message.name
        case _:
            # Another life of the run may have asked at the same place; messages of before do not say which.
            asked = approval_id(executor.run.id, pending.path, executor.stored.life)
            return (
                isinstance(operation, AskApproval)
                and pending.path == message.name
                and message.reference in (None, asked)
            )


def answer(executor: "Executor", pending: Pending, message: Message) -> None:
    """End a wait by a message; a payload that does not fit ends it with an error."""
    pending.answered = True
    meta = None
    if message.kind == "update":
        meta = encode_json({"id": message.reference})
    elif message.kind == "event":
        meta = had_until(pending, int(message.reference or 0))
    row = bare_row(pending, "completed", output=message.payload, meta=meta)
    try:
        completion = Completion(pending, outcome_of(pending.operation, row), output=message.payload, meta=meta)
    except Exception as error:  # noqa: BLE001 - whatever the payload's type says of it
        completion = failed(pending, error)
        completion.meta = meta
    if message.number:
        completion.message = message
        completion.writes = (Write(DELETE_MESSAGE, (executor.run.id, message.number)),)
    executor.complete(completion)


def had_until(pending: Pending, position: int) -> str:
    """What the history keeps of a wait for an event: up to where the run has had all that it waited for."""
    return encode_json({"position": position, "match": event_key(pending)[1]})


def event_key(pending: Pending) -> tuple[str, str]:
    """The (type, match) of a wait for an event."""
    operation = pending.operation
    assert isinstance(operation, WaitEvent)  # noqa: S101 - whoever asks knows
    return operation.name, operation.match


def reason_of(payload: str) -> str:
    """The reason in a cancellation's payload."""
    return str(decode_json(payload or "{}").get("reason", "cancelled"))


def waiting_for(executor: "Executor") -> list[dict[str, Any]]:
    """What the run waits for, for people: waits that look alike are one entry with their `count`, children come first.

    A run may wait for thousands: past some dozens of entries, the last one says how many more there are.
    """
    counts = Counter(_wait_of(executor, pending) for pending in executor.driver.pending.values())
    alike = sorted(counts.items(), key=lambda entry: entry[0][0] != "child")
    found = [
        {"kind": kind, "name": name, "until": None if at is None else time_text(at), "count": count}
        for (kind, name, at), count in alike[:ENTRIES]
    ]
    if len(alike) > ENTRIES:
        count = sum(count for _, count in alike[ENTRIES:])
        found.append({"kind": "others", "name": f"{count} others", "until": None, "count": count})
    return found


def _wait_of(executor: "Executor", pending: Pending) -> tuple[str, str, int | None]:
    timer = executor.deadlines.get(pending.path)
    return pending.operation.kind, pending.operation.name, None if timer is None else timer.at
