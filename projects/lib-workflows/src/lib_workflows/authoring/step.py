"""Steps: the ordinary functions in which a workflow touches the world, at least once each."""

import inspect
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, overload

from lib_events.trace_context import TraceContext
from lib_workflows.authoring.guard import is_guarded
from lib_workflows.authoring.retry import DEFAULT_BACKOFF, Backoff
from lib_workflows.errors import DefinitionError, DelegationRefused, DeterminismError, StepCancelled, WorkflowsError
from lib_workflows.run_logs import place_in_run
from lib_workflows.values.codec import Signature, written_function
from lib_workflows.values.durations import check_seconds
from lib_workflows.values.failure import check_declared
from lib_workflows.values.texts import check_name
from lib_workflows.values.trace_places import operation_span, trace_of

if TYPE_CHECKING:
    from lib_workflows.authoring.delegation import StarterTokens
    from lib_workflows.run_logs import RunLog


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOptions:
    """How a step is run: how often, how long, where. See `step`."""

    retries: int = 0
    backoff: Backoff = DEFAULT_BACKOFF
    timeout: timedelta | None = None
    total_timeout: timedelta | None = None
    start_timeout: timedelta | None = None
    heartbeat_timeout: timedelta | None = None
    errors: tuple[type[Exception], ...] = ()
    process: bool = False

    def check(self, name: str, function: Callable[..., Any]) -> None:
        """Raise `DefinitionError` for what the engine cannot do."""
        is_async = inspect.iscoroutinefunction(written_function(function))
        if not isinstance(self.retries, int) or self.retries < 0:
            raise DefinitionError(f"retries of step {name} must be a whole number, 0 or more, got {self.retries!r}")
        check_declared(self.errors, f"errors of step {name}")
        if not isinstance(self.backoff, Backoff):
            raise DefinitionError(f"backoff of step {name} must be a Backoff(…), got {self.backoff!r:.100}")
        for limit in ("timeout", "total_timeout", "start_timeout", "heartbeat_timeout"):
            value = getattr(self, limit)
            if value is None:
                continue
            if not isinstance(value, timedelta):
                raise DefinitionError(
                    f"{limit} of step {name} must be a timedelta, got {value!r:.100}; write timedelta(seconds=…)"
                )
            if check_seconds(abs(value), f"{limit} of step {name}") == 0 or value < timedelta(0):
                raise DefinitionError(f"{limit} of step {name} must be positive, got {value}")
        if self.process and "<locals>" in getattr(function, "__qualname__", "<locals>"):
            raise DefinitionError(
                f"step {name} must be at the top of its module to run in a process, got {function!r:.200}"
            )
        if self.process and is_async:
            raise DefinitionError(f"step {name} must be a def to run in a process, got an async def; drop one of both")
        if self.start_timeout is not None and is_async:
            raise DefinitionError(
                f"step {name} must be a def to have a start_timeout: an async def waits for no thread"
            )


class Step[*Args, R]:
    """A function the engine runs at least once per operation, with retries; made by `@step`.

    Called directly it is the plain function, which keeps it easy to test; a workflow must not do that.
    """

    def __init__(self, function: Callable[[*Args], Any], *, name: str, options: StepOptions) -> None:
        self.function = function
        self.name = check_name(name, "name of a step")
        self.options = options
        self.is_async = inspect.iscoroutinefunction(written_function(function))
        options.check(name, function)
        self.signature = Signature(function, f"step {name}")
        self.__doc__ = function.__doc__

    def __call__(self, *args: *Args) -> Any:
        """Call the plain function; raises `DeterminismError` in a workflow, where each replay would call it again."""
        if is_guarded():
            raise DeterminismError(
                f"a workflow must run step {self.name} by its ctx, got a plain call; use await ctx.step({self.name}, …)"
            )
        return self.function(*args)

    def __repr__(self) -> str:
        return f"<step {self.name}>"


class _StepDecorator(Protocol):
    """`@step(...)` waiting for its function."""

    @overload
    def __call__[*A, R](self, function: Callable[[*A], Coroutine[Any, Any, R]], /) -> Step[*A, R]: ...
    @overload
    def __call__[*A, R](self, function: Callable[[*A], R], /) -> Step[*A, R]: ...


@overload
def step[*A, R](function: Callable[[*A], Coroutine[Any, Any, R]], /) -> Step[*A, R]: ...
@overload
def step[*A, R](function: Callable[[*A], R], /) -> Step[*A, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    retries: int = 0,
    backoff: Backoff = DEFAULT_BACKOFF,
    timeout: timedelta | None = None,
    total_timeout: timedelta | None = None,
    start_timeout: timedelta | None = None,
    heartbeat_timeout: timedelta | None = None,
    errors: tuple[type[Exception], ...] = (),
    process: bool = False,
) -> _StepDecorator: ...
def step(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    **options: Any,
) -> Any:
    """Make a function a step: `async def`, or `def` (runs in a thread); positional parameters only.

    It runs at least once for each time a workflow asks for it, and its result is kept: a replay does not run it
    again.

    - `retries` counts the attempts after the first, with pauses by `backoff`; raise `NonRetryable` to end them.
    - Exceptions listed in `errors` are results: they are not retried and reach the workflow as themselves, live and
      replayed; any other is retried and then reaches it as `StepFailed`.
    - `timeout` bounds one attempt from when it begins to run, `heartbeat_timeout` the time between two calls of
      `current_step().heartbeat()`, `start_timeout` how long an attempt may wait for a free thread or process, and
      `total_timeout` all attempts and their pauses, from when the workflow asks. After the last two there is no
      further attempt. A timed-out step reaches the workflow as `StepFailed` with a `StepTimeout` in it.
    - `process=True` runs a `def` in a process of its own beside the engine: for work that keeps a CPU busy. Its
      arguments and result are pickled; a timeout or a cancellation kills the process.
    """

    def decorate(target: Callable[..., Any]) -> Step[*tuple[Any, ...], Any]:
        chosen = StepOptions(**options)
        return Step(target, name=target.__name__ if name is None else name, options=chosen)

    return decorate if function is None else decorate(function)


@dataclass(slots=True)
class StepRun:
    """One attempt of a step, as the step itself sees it through `current_step()`."""

    run_id: str
    operation: str
    name: str
    attempt: int
    on_heartbeat: Callable[["StepRun", Any], None] = field(repr=False)
    last_progress: Any = None  # of the last heartbeat of an earlier attempt: where this one may go on
    scope: str = ""  # sets the runs of a `ctx.continue_as_new` apart
    undone: int = 0  # how often the operation was undone before the run was retried
    log: "RunLog | None" = field(default=None, repr=False, kw_only=True)  # where what it logs is kept
    tokens: "StarterTokens | None" = field(default=None, repr=False, kw_only=True)
    _cancelled: bool = field(default=False, repr=False)  # set from the loop, read from a thread
    life: int = 0  # of the run: how often it was retried, or continued as new, before
    trace: str | None = field(default=None, repr=False)  # within which the run is (W3C Trace Context)
    correlation_id: str = field(default="", repr=False)
    is_traced: bool | None = field(default=None, repr=False)  # whether its trace is kept, where that was asked here

    @property
    def idempotency_key(self) -> str:
        """The same over all attempts of this operation: give it to whoever must not act twice.

        Once the operation was undone, a retry of the run does it anew, by another key; so does what undoes it again.
        """
        again = f"~{self.undone}" if self.undone else ""
        return f"{self.run_id}{self.scope}:{self.operation}{again}"

    @property
    def traceparent(self) -> str:
        """This attempt's place in its trace (W3C Trace Context): give it to whoever the step calls.

        It is that of the attempt's span where the installation has traces; the same however often it is asked for.
        """
        return str(self.trace_context())

    def trace_context(self) -> TraceContext:
        """The span of this attempt."""
        trace_id, parent = trace_of(self.trace, self.correlation_id or self.run_id)
        kept = self.is_traced if self.is_traced is not None else parent is not None and parent.is_sampled
        return TraceContext(trace_id, operation_span(self.run_id, self.life, self.operation, self.attempt), kept)

    @property
    def cancelled(self) -> bool:
        """Whether this attempt should stop: the run is cancelled, or the attempt ran out of time."""
        return self._cancelled

    def heartbeat(self, progress: Any = None) -> None:
        """Tell that this attempt is alive, with its progress (any JSON-able value).

        Who watches hears it at once; it is kept, at most once a second, for the attempt after a failure or a crash.
        """
        self.on_heartbeat(self, progress)

    async def access_token(self, resource: str | None = None, scope: Sequence[str] = ()) -> str:
        """An access token for the person who started the run: for minutes, for one service, for what is declared.

        The workflow declares it: `@workflow(…, acts_for_starter=Delegation(resource=…, scope=…))`. `resource` may be
        left out where there is one, `scope` where all of it is wanted. Ask anew rather than keep it; never return it.
        Raises `DelegationRefused`, which is not retried, or `TokensUnavailable`, which is.
        """
        return await self._starter_tokens().ask(resource, scope)

    def wait_access_token(self, resource: str | None = None, scope: Sequence[str] = ()) -> str:
        """The same for a step that is a `def` and runs in a thread."""
        return self._starter_tokens().ask_from_thread(resource, scope)

    def _starter_tokens(self) -> "StarterTokens":
        if self.tokens is None:
            raise DelegationRefused(
                "undeclared",
                f"step {self.name} must be of a workflow that declares acts_for_starter=Delegation(…), and run on the "
                "loop or in a thread (not process=True), to act for the person who started the run",
            )
        return self.tokens

    def raise_if_cancelled(self) -> None:
        """Raise `StepCancelled` when this attempt should stop."""
        if self.cancelled:
            raise StepCancelled(f"step {self.name} of run {self.run_id} was asked to stop")

    def cancel(self) -> None:
        """Ask this attempt to stop."""
        self._cancelled = True


def current_step() -> StepRun:
    """The step that is running here; raises `WorkflowsError` outside one."""
    place = place_in_run.get()
    if isinstance(place, StepRun):
        return place
    raise WorkflowsError("current_step() must be called inside a step; in a workflow use ctx")
