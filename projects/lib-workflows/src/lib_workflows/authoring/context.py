"""What a workflow may do: every effect, wait and source of chance goes through its context."""

import inspect
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Never, Protocol

from lib_events.clock import to_datetime
from lib_events.event import Cause, Event, EventType, is_reserved
from lib_workflows.authoring.messages import Decision, Principal, Signal, Update, UpdateCall
from lib_workflows.authoring.operation import (
    AskApproval,
    ContinueAsNew,
    EnterTimeout,
    ExitTimeout,
    Gather,
    Operation,
    Publish,
    Race,
    RunChild,
    RunStep,
    RunTransaction,
    SetTags,
    SetView,
    Sleep,
    StartRun,
    TimeoutScope,
    WaitEvent,
    WaitSignal,
    WaitUpdate,
    name_of,
)
from lib_workflows.authoring.start_options import OnConflict, StartOptions
from lib_workflows.authoring.step import Step
from lib_workflows.errors import DefinitionError, WaitTimeout
from lib_workflows.values.codec import canonical_json, decode_json, encode_given, within_limit
from lib_workflows.values.durations import check_optional_seconds, check_seconds
from lib_workflows.values.tags import check_tags
from lib_workflows.values.texts import check_name, check_text

if TYPE_CHECKING:
    from lib_events.database import Connection
    from lib_workflows.authoring.workflow import Workflow

MATCH_BYTES = 1_000  # waits are found by their match and the names in it: both must fit into a row of an index


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What is fixed about a run from its start."""

    id: str
    workflow: str
    version: int
    source: str  # the CloudEvents source of the service it runs in
    principal: Principal | None = None
    correlation_id: str = ""
    causation_id: str | None = None
    traceparent: str | None = None
    tags: Mapping[str, str] | None = None

    def cause(self) -> Cause:
        """The cause every event of the run carries."""
        return Cause(
            correlation_id=self.correlation_id or self.id,
            causation_id=self.causation_id,
            principal=self.principal.subject if self.principal else None,
            traceparent=self.traceparent,
        )


class Conductor(Protocol):
    """What the context needs of whoever drives the workflow."""

    def run_info(self) -> RunInfo:
        """What is fixed about the run."""
        ...

    def now_micros(self) -> int:
        """The time of the last thing the workflow heard."""
        ...

    def random_bytes(self) -> bytes:
        """Sixteen bytes that depend on the run and the place in it alone."""
        ...

    def report_progress(self, fraction: float, text: str) -> None:
        """Tell who watches."""
        ...

    def is_patched(self, name: str) -> bool:
        """Whether the run came to this place with code that has the patch."""
        ...

    def history_length(self) -> int:
        """How many operations of the workflow have ended."""
        ...

    @property
    def signal_run(self) -> Callable[["Connection", str, str, str], None]:
        """The transaction function that leaves a signal for a run: its id, the signal's name, the payload as JSON."""
        ...


class Context:
    """The first argument of every workflow. Its operations begin when they are awaited, gathered or raced."""

    __slots__ = ("_conductor", "_encode_own_input", "_run")

    def __init__(self, conductor: Conductor, encode_own_input: Callable[[tuple[Any, ...]], str | None]) -> None:
        self._conductor = conductor
        self._encode_own_input = encode_own_input
        self._run: RunInfo | None = None

    @property
    def run(self) -> RunInfo:
        """What is fixed about this run."""
        if self._run is None:
            self._run = self._conductor.run_info()
        return self._run

    @property
    def run_id(self) -> str:
        """The id of this run."""
        return self.run.id

    def step[*A, R](
        self, step: Step[*A, R], *args: *A, undo: Callable[[R | None, *A], Any] | None = None
    ) -> Operation[R]:
        """Run a step: at least once, its result kept. `undo(result | None, *args)` runs if the run fails or is
        cancelled; its first argument is None when it is not known whether the step had its effect.

        Raises what the step declares in `errors`, or `StepFailed`.
        """
        if not isinstance(step, Step):
            raise DefinitionError(f"ctx.step must get a function decorated with @step, got {step!r}")
        return RunStep(step, args, _checked(undo, f"step {step.name}"))

    def transaction[*A, R](
        self,
        function: Callable[["Connection", *A], R],
        *args: *A,
        undo: Callable[["Connection", R | None, *A], Any] | Step[R | None, *A, Any] | None = None,
    ) -> Operation[R]:
        """Run a transaction function exactly once: what it writes and its place in the history are one commit.

        It must have no effect but through its connection. What it raises is kept and raised here. `undo(connection,
        result | None, *args)` is a transaction, too; one that is a step gets no connection.
        """
        if not callable(function) or inspect.iscoroutinefunction(function):
            raise DefinitionError(f"ctx.transaction must get a def, which never awaits, got {function!r:.100}")
        if undo is not None and (not callable(undo) or inspect.iscoroutinefunction(undo)):
            raise DefinitionError(
                f"undo of transaction {name_of(function)} must be a def undo(connection, result, …) or a step, "
                f"got {undo!r:.100}"
            )
        return RunTransaction(function, args, undo)

    def child[*In, R](
        self,
        workflow: "Workflow[*In, R]",
        *args: *In,
        undo: Callable[[R | None, *In], Any] | None = None,
        id: str | None = None,  # noqa: A002 - as `engine.start`
        queue: str | None = None,
        queue_key: str | None = None,
        priority: int = 0,
        delay: timedelta | None = None,
        deadline: datetime | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Operation[R]:
        """Start another workflow and wait for its result; it is cancelled with this run.

        With an `id`, that run is its child and nobody else's: `RunIdTaken` where there is another run of that id. A
        retry of this run goes on with the child it had: what has completed stands, unless it was undone; what has not
        is retried. A fork of this run does not get it; nor does the next life of one that continues as new.
        `queue` and the other options are as those of `engine.start`; what this run has of them is not the child's.
        Raises what the child's workflow or steps declare, else `RunFailed` or `RunCancelled`.
        """
        encoded_input(workflow, args)
        options = StartOptions.of(
            id=id, queue=queue, queue_key=queue_key, priority=priority, delay=delay, deadline=deadline, tags=tags
        )
        return RunChild(workflow, args, _checked(undo, f"child {workflow.name}"), options)

    def start[*In](
        self,
        workflow: "Workflow[*In, Any]",
        *args: *In,
        id: str | None = None,  # noqa: A002 - as `engine.start`
        on_conflict: OnConflict = "same",
        queue: str | None = None,
        queue_key: str | None = None,
        priority: int = 0,
        delay: timedelta | None = None,
        deadline: datetime | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Operation[str]:
        """Start another workflow that goes on by itself, once; returns the id of its run.

        It is neither awaited nor cancelled with this run; what it does is caused by this run all the same. The options
        are those of `engine.start`, also `id` and `on_conflict`: whoever has started the run of that id, it is that
        one, or `RunConflict` is raised.
        """
        encoded_input(workflow, args)
        options = StartOptions.of(
            id=id,
            on_conflict=on_conflict,
            queue=queue,
            queue_key=queue_key,
            priority=priority,
            delay=delay,
            deadline=deadline,
            tags=tags,
        )
        return StartRun(workflow, args, options)

    def sleep(self, duration: timedelta | float) -> Operation[None]:
        """Wait, for milliseconds or years, without holding anything in memory."""
        return Sleep(check_seconds(duration, "ctx.sleep"))

    def wait_event[T](
        self,
        event_type: EventType[T],
        match: Mapping[str, Any] | None = None,
        timeout: timedelta | float | None = None,
    ) -> Operation[T]:
        """Wait for an event whose payload has these top-level fields; returns the payload.

        Looks back to the event that started the run, else to the start, and gives each event at most once per
        (type, match). Raises `WaitTimeout`; `PayloadTooLarge` for a match of more than 1,000 bytes.
        """
        _check_is(event_type, EventType, "ctx.wait_event")
        if event_type.packed:
            raise DefinitionError(f"ctx.wait_event must get an event with a row of its own, got {event_type!r}")
        what = "match of ctx.wait_event"
        fields = canonical_json(decode_json(within_limit(encode_given(dict(match or {}), what), what, MATCH_BYTES)))
        return WaitEvent(event_type, fields, check_optional_seconds(timeout, "timeout of ctx.wait_event"))

    def wait_signal[T](self, signal: Signal[T], timeout: timedelta | float | None = None) -> Operation[T]:
        """Wait for a signal; one that came before is taken at once. Raises `WaitTimeout`."""
        _check_is(signal, Signal, "ctx.wait_signal")
        return WaitSignal(signal, check_optional_seconds(timeout, "timeout of ctx.wait_signal"))

    def wait_update[In, Out](
        self, update: Update[In, Out], timeout: timedelta | float | None = None
    ) -> Operation[UpdateCall[In, Out]]:
        """Wait for an update; answer it with `await call.reply(…)` or `await call.reject(…)`."""
        _check_is(update, Update, "ctx.wait_update")
        return WaitUpdate(update, check_optional_seconds(timeout, "timeout of ctx.wait_update"))

    def approval(
        self,
        name: str,
        *,
        text: str,
        to: str,
        timeout: timedelta | float | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> Operation[Decision]:
        """Ask `to` ("user:<subject>" or "role:<name>") and wait for the decision. Raises `WaitTimeout` when it is due.

        `about` says what is decided on, for machines: it is carried in `evs.approval.decided`.
        """
        if not to.startswith(("user:", "role:")) or not to[5:]:
            raise DefinitionError(f"ctx.approval must go to 'user:<subject>' or 'role:<name>', got {to!r}")
        check_name(name, "name of ctx.approval")
        check_text(text, "text of ctx.approval")
        check_name(to, "addressee of ctx.approval")
        if about is not None:
            encode_given(about, "about of ctx.approval")
        return AskApproval(name, text, to, check_optional_seconds(timeout, "timeout of ctx.approval"), about)

    def gather[R](self, *branches: Awaitable[R], limit: int | None = None) -> Operation[list[R]]:
        """Run branches side by side, at most `limit` at once; returns their results in order.

        A branch is an operation or a coroutine of this workflow. The first failure cancels and awaits the others,
        then is raised.
        """
        return self._gather(branches, limit, "ctx.gather")

    def _gather[R](self, branches: tuple[Awaitable[R], ...], limit: int | None, what: str) -> Operation[list[R]]:
        if limit is not None and limit < 1:
            raise DefinitionError(f"limit of {what} must be 1 or more, got {limit}")
        return Gather(_asked_for(branches, what), limit)

    def map[T, R](
        self, branch: Callable[[T], Awaitable[R]], items: Iterable[T], *, limit: int | None = None
    ) -> Operation[list[R]]:
        """Run `branch(item)` for each item, at most `limit` at once; returns their results in order.

        `await ctx.map(lambda order: ctx.step(charge, order), orders, limit=10)`; otherwise like `gather`.
        """
        if not callable(branch):
            raise DefinitionError(f"ctx.map must get a function, then the items, got {branch!r:.100} first")
        return self._gather(tuple(map(branch, items)), limit, "ctx.map")

    def race[R](self, *branches: Awaitable[R]) -> Operation[tuple[int, R]]:
        """Run branches side by side until the first ends; cancels and awaits the others.

        Returns its index, from zero, and its result, or raises its error.
        """
        if not branches:
            raise DefinitionError("ctx.race must get at least one branch, got none")
        return Race(_asked_for(branches, "ctx.race"))

    def timeout(self, duration: timedelta | float) -> "Timeout":
        """Bound a block: `async with ctx.timeout(…)` cancels what the block waits for and raises `WaitTimeout`."""
        return Timeout(check_seconds(duration, "ctx.timeout"))

    def publish[T](self, event_type: EventType[T], payload: T, subject: str | None = None) -> Operation[None]:
        """Append an event to the log, with the history's row; its subject is the run's id unless given."""
        _check_is(event_type, EventType, "ctx.publish")
        if is_reserved(event_type.name):
            raise DefinitionError(f"ctx.publish must not use evs.*, got {event_type.name!r}; choose your own namespace")
        event = Event.of(
            event_type,
            payload,
            source=self.run.source,
            subject=check_name(subject, "subject of ctx.publish") if subject is not None else self.run.id,
            cause=self.run.cause(),
            id=str(self.uuid()),
            time=self.now(),
        )
        encode_given(event.data, f"data of event {event_type.name}")
        return Publish(event)

    def signal[T](self, run_id: str, signal: Signal[T], value: T) -> Operation[None]:
        """Send a signal to another run, exactly once: as a transaction, with the history's row.

        Raises `RunNotFound`, or `CommandRefused` once that run has ended.
        """
        _check_is(signal, Signal, "ctx.signal")
        args = (check_name(run_id, "id of a run"), signal.name, signal.codec.encode(value))
        return RunTransaction(self._conductor.signal_run, args)

    def set_view(self, name: str, value: Any) -> Operation[None]:
        """Store a JSON-able value that anyone who may see the run can read, also while it is out of memory."""
        return SetView(check_name(name, "name of ctx.set_view"), encode_given(value, f"view {name}"))

    def set_tags(self, tags: Mapping[str, str | None]) -> Operation[None]:
        """Change tags of this run, by which runs are found; None takes one away. `ctx.run.tags` stays as it began."""
        return SetTags(check_tags(tags))

    def continue_as_new(self, *args: Any) -> Operation[Never]:
        """End here and begin again with another input and an empty history: `await ctx.continue_as_new(next_input)`.

        For workflows that go on for ever. The run keeps its id, tags, views, deadline and unread messages; what has
        an undo is not undone any more. An event is found by `wait_event` through the life in which it came and the next
        one, and for as long as each life waits for that type and match. What the run was so far becomes an ended run of
        its own, `<id>~<number>`.
        """
        return ContinueAsNew(self._encode_own_input(args))

    @property
    def history_length(self) -> int:
        """How many operations have ended so far: past some thousands, `continue_as_new` keeps replays short."""
        return self._conductor.history_length()

    def patched(self, name: str) -> bool:
        """Whether this run came to this place with code that has the patch `name`: the same on every replay.

        Runs that had passed here before go on with the old code: `if ctx.patched("new tax"): … else: …`. The first
        answer counts for the whole run. Once no run of before is left, the `if` and the old code may go.
        """
        check_name(name, "name of ctx.patched")
        return self._conductor.is_patched(name)

    def progress(self, fraction: float, text: str = "") -> None:
        """Tell who watches how far it is: live only, not history."""
        self._conductor.report_progress(fraction, text)

    def now(self) -> datetime:
        """The time, as of the last thing this workflow heard: the same on every replay."""
        return to_datetime(self._conductor.now_micros())

    def random(self) -> float:
        """A number in [0, 1), the same on every replay."""
        return (int.from_bytes(self._conductor.random_bytes()[:7]) >> 3) / (1 << 53)

    def uuid(self) -> uuid.UUID:
        """A UUID, the same on every replay and different everywhere else."""
        return uuid.UUID(bytes=self._conductor.random_bytes(), version=4)


def _check_is(given: object, kind: type, what: str) -> None:
    """Raise `DefinitionError` for what is not of that kind: a name alone says nothing of the type of what comes."""
    if not isinstance(given, kind):
        article = "an" if kind.__name__[0] in "EU" else "a"
        raise DefinitionError(f"{what} must get {article} {kind.__name__}(…), got {given!r:.100}")


def _checked[U: Callable[..., Any] | None](undo: U, what: str) -> U:
    """Return what is to undo an operation; raises `DefinitionError` for what could not."""
    if undo is not None and not callable(undo):
        raise DefinitionError(f"undo of {what} must be a function or a step, got {undo!r:.100}")
    return undo


def _asked_for[A: Awaitable[Any]](branches: tuple[A, ...], what: str) -> tuple[A, ...]:
    """Note of the operations among `branches` that they are asked for, whether or not their turn comes."""
    for branch in branches:
        if isinstance(branch, Operation):
            branch.is_asked_for = True
        elif not inspect.isawaitable(branch):
            raise DefinitionError(f"{what} must get operations or coroutines, got {branch!r:.100}; write *… for a list")
    return branches


class Timeout:
    """A block that must end in time; made by `ctx.timeout`."""

    __slots__ = ("_scope", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._scope: TimeoutScope | None = None

    async def __aenter__(self) -> None:
        self._scope = await EnterTimeout(self._seconds)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        scope = self._scope
        if scope is None:
            return
        if not isinstance(error, GeneratorExit):
            await ExitTimeout(scope)
        if error is not None and error is scope.expiry:
            raise scope.overruled_by or WaitTimeout(f"the end of a block of {self._seconds} s") from error


def encoded_input(workflow: Any, args: tuple[Any, ...]) -> str | None:
    """Encode the input of a workflow; raises `DefinitionError` for what is none, else as `Workflow.encode_input`."""
    if not hasattr(workflow, "encode_input"):
        raise DefinitionError(f"what is started must be a function decorated with @workflow, got {workflow!r:.80}")
    text: str | None = workflow.encode_input(args)
    return text
