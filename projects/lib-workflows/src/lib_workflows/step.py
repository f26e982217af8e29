"""Steps: the ordinary functions in which a workflow touches the world, at least once each."""

import contextlib
import inspect
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, overload

from lib_workflows.codec import Signature
from lib_workflows.errors import DefinitionError, StepCancelled, WorkflowsError
from lib_workflows.retry import DEFAULT_BACKOFF, Backoff

if TYPE_CHECKING:
    from lib_workflows.run_logs import RunLog


class Step[*Args, R]:
    """A function the engine runs at least once per operation, with retries; made by `@step`.

    Called directly it is the plain function, which keeps it easy to test.
    """

    def __init__(
        self,
        function: Callable[[*Args], Any],
        *,
        name: str,
        retries: int,
        backoff: Backoff,
        timeout: timedelta | None,
        errors: tuple[type[Exception], ...],
    ) -> None:
        self.function = function
        self.name = name
        self.retries = retries
        self.backoff = backoff
        self.timeout_seconds = timeout.total_seconds() if timeout is not None else None
        self.errors = errors
        self.is_async = inspect.iscoroutinefunction(function)
        self.signature = Signature(function, f"step {name}")
        self.__doc__ = function.__doc__

    def __call__(self, *args: *Args) -> Any:
        """Call the plain function."""
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
    errors: tuple[type[Exception], ...] = (),
) -> _StepDecorator: ...
def step(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retries: int = 0,
    backoff: Backoff = DEFAULT_BACKOFF,
    timeout: timedelta | None = None,
    errors: tuple[type[Exception], ...] = (),
) -> Any:
    """Make a function a step: `async def`, or `def` (runs in a thread); positional parameters only.

    It runs at least once for each time a workflow asks for it, and its result is kept: a replay does not run it
    again. `retries` counts the attempts after the first. `timeout` bounds one attempt. Exceptions listed in
    `errors` are results: they are not retried and reach the workflow as themselves, live and replayed; any other
    is retried and then reaches it as `StepFailed`.
    """

    def decorate(target: Callable[..., Any]) -> Step[*tuple[Any, ...], Any]:
        step_name = name or target.__name__
        if retries < 0:
            raise DefinitionError(f"retries of step {step_name} must be 0 or more, got {retries}")
        if timeout is not None and timeout <= timedelta(0):
            raise DefinitionError(f"timeout of step {step_name} must be positive, got {timeout}")
        return Step(target, name=step_name, retries=retries, backoff=backoff, timeout=timeout, errors=tuple(errors))

    return decorate if function is None else decorate(function)


@dataclass(slots=True)
class StepRun:
    """One attempt of a step, as the step itself sees it through `current_step()`."""

    run_id: str
    operation: str
    name: str
    attempt: int
    on_heartbeat: Callable[["StepRun", Any], None] = field(repr=False)
    run_log: "RunLog | None" = field(default=None, repr=False, kw_only=True)  # where what it logs is kept
    _cancelled: bool = field(default=False, repr=False)  # set from the loop, read from a thread

    @property
    def idempotency_key(self) -> str:
        """The same over all attempts of this operation: give it to whoever must not act twice."""
        return f"{self.run_id}:{self.operation}"

    @property
    def cancelled(self) -> bool:
        """Whether this attempt should stop: the run is cancelled, or the attempt ran out of time."""
        return self._cancelled

    def heartbeat(self, progress: Any = None) -> None:
        """Tell that this attempt is alive, with its progress (any JSON-able value); live only."""
        self.on_heartbeat(self, progress)

    def raise_if_cancelled(self) -> None:
        """Raise `StepCancelled` when this attempt should stop."""
        if self.cancelled:
            raise StepCancelled(f"step {self.name} of run {self.run_id} was asked to stop")

    def cancel(self) -> None:
        """Ask this attempt to stop."""
        self._cancelled = True


running_step: ContextVar[StepRun] = ContextVar("running_step")


def current_step() -> StepRun:
    """The step that is running here; raises `WorkflowsError` outside one."""
    with contextlib.suppress(LookupError):
        return running_step.get()
    raise WorkflowsError("current_step() must be called inside a step; in a workflow use ctx")
