"""Steps, undos and transactions: the operations that touch the world."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from lib_events.statement import Write
from lib_workflows.authoring.delegation import StarterTokens
from lib_workflows.authoring.operation import RunStep, RunUndo
from lib_workflows.authoring.step import Step, StepOptions, StepRun
from lib_workflows.errors import DefinitionError, NonRetryable, StepTimeout
from lib_workflows.execution.completion import Completion, complete_cancelled, completed, failed
from lib_workflows.execution.driver import Pending
from lib_workflows.execution.heartbeat import Heart
from lib_workflows.execution.history import failure_of
from lib_workflows.execution.transaction_effects import queue_transaction
from lib_workflows.execution.undoing import announce, check_undone
from lib_workflows.runs.lifecycle_events import STEP_RETRIED, STEP_STARTED
from lib_workflows.runs.record import UNDO_SUFFIX, Attempted
from lib_workflows.statements import DELETE_ATTEMPT, PUT_ATTEMPT
from lib_workflows.steps.attempt import Attempt
from lib_workflows.values.codec import decode_json
from lib_workflows.values.failure import decode_record, encode_record, record_of

if TYPE_CHECKING:
    from lib_workflows.execution.executor import Executor

UNDO_OPTIONS = StepOptions(retries=10)


def begin_step(executor: "Executor", pending: Pending) -> None:
    """Run a step, once everything before it is durable."""
    operation = pending.operation
    assert isinstance(operation, RunStep)  # noqa: S101 - the table says so
    try:
        operation.step.signature.check()
    except DefinitionError as error:
        executor.complete(failed(pending, error))
        return
    _begin_attempts(executor, pending, operation.step, operation.args)


def begin_undo(executor: "Executor", pending: Pending) -> None:
    """Undo an operation: in a transaction, or by a step (a plain function is one with patient retries)."""
    operation = pending.operation
    assert isinstance(operation, RunUndo)  # noqa: S101 - the table says so
    error = executor.driver.undone_for
    assert error is not None  # noqa: S101 - only what fails is undone
    announce(executor, executor.driver.undo_plan, error)
    if operation.transactional:
        tries_again = partial(_undo_again, executor, pending)
        undo = partial(queue_transaction, executor, pending, operation.function, operation.args, tries_again)
        _after_its_pause(executor, pending, undo)
        return
    step = operation.function
    if not isinstance(step, Step):
        step = Step(step, name=operation.name, options=UNDO_OPTIONS)
    lingering = executor.lingering.pop(operation.target, None)
    if lingering is not None and lingering.lingers:
        # The thread of what is to be undone still runs: undoing beside it would undo nothing.
        assert lingering.future is not None  # noqa: S101 - it lingers
        executor.running[pending.path] = lingering.future
        lingering.future.add_done_callback(lambda _: _resume_undo(executor, pending, step, operation.args))
        return
    _begin_attempts(executor, pending, step, operation.args)


def _resume_undo(executor: "Executor", pending: Pending, step: Step[Any, Any], args: tuple[Any, ...]) -> None:
    if not executor.ended:
        executor.running.pop(pending.path, None)
        _begin_attempts(executor, pending, step, args)
        executor.turn()


def _undo_again(executor: "Executor", pending: Pending, error: Exception) -> bool:
    """Whether a transaction that undoes something is tried again, like an undo that is a plain function."""
    last, options = executor.attempts.get(pending.path), UNDO_OPTIONS
    number = 1 if last is None else last.number + 1
    if number > options.retries or isinstance(error, NonRetryable):
        return False
    executor.transaction = None
    executor.running.pop(pending.path, None)
    next_at = _after_backoff(executor, pending, options, number)
    _retry(executor, pending, number, error, pending.begun_at, next_at, partial(begin_undo, executor, pending))
    return True


def _begin_attempts(executor: "Executor", pending: Pending, step: Step[Any, Any], args: tuple[Any, ...]) -> None:
    launch = partial(executor.when_durable, partial(_launch, executor, pending, step, args))
    _after_its_pause(executor, pending, launch)


def _after_its_pause(executor: "Executor", pending: Pending, then: Callable[[], None]) -> None:
    """Begin an attempt, in a life that has found the operation between two of them after what is left of the pause."""
    next_at = executor.stored.pauses.pop(pending.path, 0)
    if next_at > executor.clock_micros():
        _pause(executor, pending, next_at, then)
    else:
        then()


def _pause(executor: "Executor", pending: Pending, until: int, then: Callable[[], None]) -> None:
    """Let the pause between two attempts pass, also when the run has come into memory early."""

    def again() -> None:
        if executor.driver.pending.get(pending.path) is pending:
            then()
            executor.turn()

    executor.arm(pending.path, until, again)


def _launch(executor: "Executor", pending: Pending, step: Step[Any, Any], args: tuple[Any, ...]) -> None:
    path = pending.path
    if executor.driver.pending.get(path) is not pending or path in executor.running or executor.ended:
        return
    if pending.cancelling is not None:
        return  # that it was stopped is about to become its row, once the transaction of another branch has its own
    number = executor.attempts[path].number + 1 if path in executor.attempts else 1
    started_at = executor.clock_micros()
    ends_at = _ends_at(pending, step)
    if ends_at is not None and ends_at <= started_at:
        _end_too_late(executor, pending, step)
        return

    heart = Heart(executor, step.name)
    progress = executor.progress.get(path)
    is_its_own = progress is not None and progress.name in (None, step.name)
    last_progress = decode_json(progress.text) if progress is not None and is_its_own else None
    run = StepRun(
        executor.run.id, path, step.name, number, heart.beat, last_progress, executor.run.scope, log=executor.log
    )
    run.life, run.trace = executor.stored.life, executor.run.traceparent
    run.correlation_id = executor.run.correlation_id
    run.undone = executor.stored.undone.get(path.removesuffix(UNDO_SUFFIX), 0)
    if executor.workflow.acts_for_starter:
        run.tokens = _starter_tokens(executor)
    total_seconds = (ends_at - started_at) / 1e6 if ends_at is not None else None
    is_last = number > step.options.retries
    on_end = partial(_attempt_ended, executor, pending, heart, started_at)
    attempt = heart.attempt = Attempt(step, args, run, is_last=is_last, total_seconds=total_seconds, on_end=on_end)
    executor.running[path] = attempt
    executor.surroundings.copy().run(attempt.start, executor.home.places)
    if not attempt.reported:
        # One that has ended already is told of by its end alone.
        executor.ledger.tell(executor.teller.tell_step(STEP_STARTED, started_at, pending.operation, path, number))
        executor.ledger.flush()


def _starter_tokens(executor: "Executor") -> StarterTokens:
    """What a step may ask for, to act for the person who started the run."""
    workflow = executor.workflow
    return StarterTokens(
        source=executor.home.tokens,
        run_id=executor.run.id,
        workflow=workflow.name,
        declared=workflow.acts_for_starter,
    )


def _ends_at(pending: Pending, step: Step[Any, Any]) -> int | None:
    """When the total timeout ends, in the workflow's time: also after a crash."""
    total = step.options.total_timeout
    return None if total is None else pending.begun_at + round(total.total_seconds() * 1e6)


def _end_too_late(executor: "Executor", pending: Pending, step: Step[Any, Any]) -> None:
    """There is no time left for another attempt: the last one's error is the step's."""
    last = executor.attempts.get(pending.path)
    if last is None:
        total = step.options.total_timeout
        error = StepTimeout(step.name, total.total_seconds() if total else 0.0, "total")
        executor.complete(failed(pending, error))
        return
    outcome = failure_of(pending.operation, decode_record(last.error), last.number)
    completion = Completion(pending, outcome, status="failed", attempt=last.number, error=last.error)
    completion.writes = (Write(DELETE_ATTEMPT, (executor.run.id, pending.path)),)
    executor.complete(completion)


def _attempt_ended(  # noqa: PLR0917 - what an attempt tells, and whose it was
    executor: "Executor",
    pending: Pending,
    heart: Heart,
    started_at: int,
    attempt: Attempt,
    value: Any,
    error: BaseException | None,
) -> None:
    heart.attempt = None  # which holds it
    try:
        executor.running.pop(pending.path, None)
        if attempt.lingers:
            executor.lingering[pending.path] = attempt
            assert attempt.future is not None  # noqa: S101 - it lingers
            attempt.future.add_done_callback(lambda _: executor.thread_ended())
        if error is not None and attempt.run.tokens is not None:
            error = attempt.run.tokens.without_tokens(error)
        if error is None:
            completion = _step_completed(pending, attempt, value)
        elif pending.cancelling is not None and not isinstance(error, Exception):
            complete_cancelled(executor, pending, ran=True, started_at=started_at)
            return
        else:
            next_at = _next_attempt_at(executor, pending, attempt, error)
            if next_at is not None:
                heart.keep(pending.path)
                again = partial(_begin_attempts, executor, pending, attempt.step, attempt.args)
                _retry(executor, pending, attempt.run.attempt, error, started_at, next_at, again)
                return
            completion = failed(pending, error, attempt.run.attempt)
        completion.started_at = started_at
        completion.attempt = attempt.run.attempt
        completion.input = _arguments(attempt)
        if attempt.run.attempt > 1:
            completion.writes = (Write(DELETE_ATTEMPT, (executor.run.id, pending.path)),)
        executor.complete(completion)
    except Exception as defect:  # noqa: BLE001 - a step that has ended must not stay without an end
        executor.put_aside(defect)


def _next_attempt_at(executor: "Executor", pending: Pending, attempt: Attempt, error: BaseException) -> int | None:
    """When the next attempt begins; None when this was the last."""
    if pending.cancelling is not None or not attempt.may_be_retried(error):
        return None
    next_at = _after_backoff(executor, pending, attempt.step.options, attempt.run.attempt)
    ends_at = _ends_at(pending, attempt.step)
    return next_at if ends_at is None or next_at < ends_at else None


def _after_backoff(executor: "Executor", pending: Pending, options: StepOptions, number: int) -> int:
    what = f"{executor.run.id}{executor.run.scope} {pending.path}"
    return executor.clock_micros() + int(options.backoff.pause_seconds(number, what) * 1e6)


def _step_completed(pending: Pending, attempt: Attempt, value: Any) -> Completion:
    try:
        if isinstance(pending.operation, RunUndo):
            check_undone(pending.operation, value)
            return completed(pending, None)
        text, settled = attempt.step.signature.result.settle(value)
        if attempt.run.tokens is not None:
            attempt.run.tokens.check(text, "its result")
    except Exception as error:  # noqa: BLE001 - a result that cannot be kept is a failure
        return failed(pending, error, attempt.run.attempt)
    return completed(pending, settled, text)


def _arguments(attempt: Attempt) -> str | None:
    # For people to read: what cannot be shown must not fail a step that has had its effect.
    try:
        return attempt.step.signature.arguments.encode(attempt.args)
    except Exception:  # noqa: BLE001
        return None


def _retry(  # noqa: PLR0917 - which attempt failed, and what comes after it
    executor: "Executor",
    pending: Pending,
    number: int,
    error: BaseException,
    started_at: int,
    next_at: int,
    again: Callable[[], None],
) -> None:
    path, record = pending.path, record_of(error)
    name = pending.operation.name
    last = executor.attempts[path] = Attempted(number, encode_record(record), name)
    executor.ledger.add(Write(PUT_ATTEMPT, (executor.run.id, path, number, next_at, last.error, name)))
    about, now = {"type": record.type, "message": record.message}, executor.clock_micros()
    what = (pending.operation, path, number)
    executor.ledger.tell(executor.teller.tell_step(STEP_RETRIED, now, *what, started_at=started_at, error=about))
    _pause(executor, pending, next_at, again)
    executor.turn()
