"""Timers, signals, updates, events and approvals: the operations that wait, and the messages that answer them."""

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from lib_events.statement import Write
from lib_workflows import commands
from lib_workflows.codec import decode_json, encode_json
from lib_workflows.completion import Completion, bare_row, completed, failed
from lib_workflows.driver import Pending
from lib_workflows.errors import WaitTimeout
from lib_workflows.event_waits import canonical_match, register_event_wait
from lib_workflows.history import outcome_of
from lib_workflows.ledger import is_infrastructure
from lib_workflows.lifecycle_events import APPROVAL_REQUESTED, time_text
from lib_workflows.operation import AskApproval, Deadline, Sleep, WaitEvent, WaitSignal, WaitUpdate
from lib_workflows.run_record import Message, approval_id
from lib_workflows.statements import DELETE_EVENT_WAIT, DELETE_MESSAGE, INSERT_APPROVAL, HistoryRow

if TYPE_CHECKING:
    from lib_workflows.executor import Executor

# Timers


def begin_sleep(executor: "Executor", pending: Pending) -> None:
    """Sleep, and the timer of a `ctx.timeout` block: both end by their timer."""
    operation = pending.operation
    assert isinstance(operation, Sleep | Deadline)  # noqa: S101 - the table says so
    _arm(executor, pending, operation.seconds, lambda: executor.complete(completed(pending, None)))


def _arm(executor: "Executor", pending: Pending, seconds: float | None, fire: Callable[[], None]) -> None:
    if seconds is None:
        return
    at = pending.begun_at + round(seconds * 1e6)
    executor.deadlines[pending.path] = at

    def fired() -> None:
        if executor.driver.pending.get(pending.path) is pending and not executor.ended:
            fire()

    executor.home.timers.add(at, fired)


def _arm_wait(executor: "Executor", pending: Pending, seconds: float | None, *writes: Write) -> None:
    def late() -> None:
        completion = failed(pending, WaitTimeout(f"{pending.operation.kind} {pending.operation.name}"))
        completion.writes = writes
        executor.complete(completion)

    _arm(executor, pending, seconds, late)


# Waits


def begin_wait_signal(executor: "Executor", pending: Pending) -> None:
    """Take the oldest signal of that name, or wait."""
    operation = pending.operation
    assert isinstance(operation, WaitSignal | WaitUpdate)  # noqa: S101 - the table says so
    kind = "signal" if isinstance(operation, WaitSignal) else "update"
    for message in executor.mailbox:
        if message.kind == kind and message.name == operation.name:
            executor.mailbox.remove(message)
            _answer(executor, pending, message)
            return
    _arm_wait(executor, pending, operation.timeout_seconds)


def begin_wait_event(executor: "Executor", pending: Pending) -> None:
    """Look back for the event; if there is none yet, let the matcher know who waits."""
    operation = pending.operation
    assert isinstance(operation, WaitEvent)  # noqa: S101 - the table says so

    def effect() -> None:
        if executor.driver.pending.get(pending.path) is pending and not executor.ended:
            executor.running[pending.path] = executor.home.spawn(_register(executor, pending, operation))

    executor.when_durable(effect)
    wait = Write(DELETE_EVENT_WAIT, (executor.run.id, pending.path))
    _arm_wait(executor, pending, operation.timeout_seconds, wait)


async def _register(executor: "Executor", pending: Pending, operation: WaitEvent[Any]) -> None:
    match = canonical_match(operation.match)
    after = executor.received.get((operation.name, match))
    database, fence = executor.home.database, executor.fence
    try:
        found = await database.transact(
            register_event_wait, executor.run.id, pending.path, operation.name, match, after, fence=fence
        )
    except Exception as error:  # noqa: BLE001 - told to whoever can do something about it
        executor.running.pop(pending.path, None)
        if is_infrastructure(error):
            executor.home.run_lost(executor, error)
        else:
            executor.complete(failed(pending, error))
        return
    executor.running.pop(pending.path, None)
    if executor.ended:
        return
    if executor.driver.pending.get(pending.path) is not pending:
        forget_event_wait(executor, pending)
        executor.turn()
    elif found is not None:
        position, payload = found
        _answer(executor, pending, Message(0, "event", pending.path, payload, str(position)))
    else:
        executor.turn()


def begin_approval(executor: "Executor", pending: Pending) -> None:
    """Ask, and wait for the decision; in a later life only wait."""
    operation = pending.operation
    assert isinstance(operation, AskApproval)  # noqa: S101 - the table says so
    due_at = None
    if operation.timeout_seconds is not None:
        due_at = pending.begun_at + round(operation.timeout_seconds * 1e6)
    if pending.path not in executor.stored.approvals:
        _ask(executor, pending, operation, due_at)
    _arm(executor, pending, operation.timeout_seconds, lambda: _expire(executor, pending))


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

    async def settle() -> None:
        approval = approval_id(executor.run.id, pending.path, executor.stored.life)
        expired = await executor.home.database.transact(
            commands.expire, approval, executor.clock_micros(), fence=executor.fence
        )
        if expired and not executor.ended:
            executor.complete(failed(pending, WaitTimeout(f"approval {pending.operation.name}")))

    executor.deadlines.pop(pending.path, None)
    executor.when_durable(lambda: _spawn(executor, settle()))


def forget_event_wait(executor: "Executor", pending: Pending) -> None:
    """Take the wait back from the matcher."""
    executor.ledger.add(Write(DELETE_EVENT_WAIT, (executor.run.id, pending.path)))


def withdraw_approval(executor: "Executor", pending: Pending) -> None:
    """Nobody needs to decide any more."""
    approval = approval_id(executor.run.id, pending.path, executor.stored.life)
    database, fence, now = executor.home.database, executor.fence, executor.clock_micros()

    async def withdraw() -> None:
        await database.transact(commands.expire, approval, now, fence=fence)

    executor.when_durable(lambda: _spawn(executor, withdraw()))


def _spawn(executor: "Executor", work: Coroutine[Any, Any, None]) -> None:
    executor.home.spawn(work)


# Messages


def take_message(executor: "Executor", message: Message) -> None:
    """Hand a message of the inbox to whoever waits for it, or keep it."""
    if message.kind == "cancel":
        executor.request_cancel(reason_of(message.payload or ""), message.number)
        return
    for pending in executor.driver.pending.values():
        if not pending.answered and _waits_for(pending, message):
            _answer(executor, pending, message)
            return
    if message.kind in ("signal", "update"):
        executor.mailbox.append(message)
    else:
        # For an operation that waits no more. An event is not lost by this: the next wait looks back.
        executor.ledger.add(Write(DELETE_MESSAGE, (executor.run.id, message.number)))


def _waits_for(pending: Pending, message: Message) -> bool:
    operation = pending.operation
    match message.kind:
        case "signal":
            return isinstance(operation, WaitSignal) and operation.name == message.name
        case "update":
            return isinstance(operation, WaitUpdate) and operation.name == message.name
        case _:
            return isinstance(operation, WaitEvent | AskApproval) and pending.path == message.name


def _answer(executor: "Executor", pending: Pending, message: Message) -> None:
    """End a wait by a message; a payload that does not fit ends it with an error."""
    pending.answered = True
    meta = None
    if message.kind == "update":
        meta = encode_json({"id": message.reference})
    elif message.kind == "event":
        meta = encode_json({"position": int(message.reference or 0), "match": _match_of(pending)})
    row = bare_row(pending, "completed", output=message.payload, meta=meta)
    try:
        completion = Completion(pending, outcome_of(pending.operation, row), output=message.payload, meta=meta)
    except Exception as error:  # noqa: BLE001 - whatever the payload's type says of it
        completion = failed(pending, error)
        completion.meta = meta
    if meta is not None and message.kind == "event":
        remember(executor, bare_row(pending, "completed", meta=meta))
    if message.number:
        completion.message = message
        completion.writes = (Write(DELETE_MESSAGE, (executor.run.id, message.number)),)
    executor.complete(completion)


def _match_of(pending: Pending) -> str:
    return canonical_match(pending.operation.match) if isinstance(pending.operation, WaitEvent) else ""


def remember(executor: "Executor", row: HistoryRow) -> None:
    """Keep how far the run has received events of a (type, match)."""
    if row.kind == "wait_event" and row.meta:
        meta = decode_json(row.meta)
        key = (row.name, meta["match"])
        executor.received[key] = max(meta["position"], executor.received.get(key, 0))


def reason_of(payload: str) -> str:
    """The reason in a cancellation's payload."""
    return str(decode_json(payload or "{}").get("reason", "cancelled"))


def waiting_for(executor: "Executor") -> list[dict[str, Any]]:
    """What the run waits for, for people."""
    found = []
    for pending in executor.driver.pending.values():
        until = executor.deadlines.get(pending.path)
        entry: dict[str, Any] = {"kind": pending.operation.kind, "name": pending.operation.name}
        found.append(entry | {"until": time_text(until) if until is not None else None})
    return found
