"""What a workflow can ask the engine for. An operation begins when it is awaited, gathered or raced.

Leaf operations end by a row of the history; `Gather`, `Race` and the two halves of a timeout only arrange
the branches of the workflow.
"""

import functools
import logging
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Never

from lib_workflows.authoring.guard import is_guarded
from lib_workflows.authoring.start_options import AS_ITS_WORKFLOW_SAYS, StartOptions
from lib_workflows.errors import DefinitionError

if TYPE_CHECKING:
    from lib_events.event import Event, EventType
    from lib_workflows.authoring.messages import Signal, Update
    from lib_workflows.authoring.step import Step
    from lib_workflows.authoring.workflow import AnyWorkflow

logger = logging.getLogger(__name__)

type Kind = Literal[
    "step", "transaction", "sleep", "wait_event", "wait_signal", "wait_update", "approval", "child", "publish",
    "view", "reply", "undo", "undoing", "cancel", "race", "timeout", "start", "tags", "patch",
]  # fmt: skip

type Undo = Callable[..., Any]

# These have effects: cancelled, they are asked to stop and their row is awaited.
AWAITED_KINDS = frozenset(("step", "transaction", "child"))


def undo_name(undo: Undo) -> str:
    """What an undo is called: a step by its name, a function by its own."""
    return str(getattr(undo, "name", None) or getattr(undo, "__name__", "undo"))


def name_of(function: Callable[..., Any]) -> str:
    """What a function is called: a part of one like itself, an object that can be called like its class."""
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__name__", None) or type(function).__name__)


class Operation[R]:
    """Something to await; `R` is what it gives. One that nobody asks for never happens: the run's log says so."""

    __slots__ = ("is_asked_for",)
    kind: ClassVar[str] = ""
    name: str
    undo: Undo | None = None
    is_asked_for: bool  # set once it is awaited, or handed to a gather or race

    @property
    def is_awaited(self) -> bool:
        """Whether it is asked to stop where it is cancelled, and its row comes all the same."""
        return self.kind in AWAITED_KINDS

    def __await__(self) -> Generator["Operation[Any]", Any, R]:
        self.is_asked_for = True
        if not is_guarded():
            raise DefinitionError(
                f"{self.kind or 'an operation'} of a ctx must be awaited by its workflow, and not in a step or outside "
                "of it; do it before or after the step"
            )
        result: R = yield self
        return result

    def __del__(self) -> None:
        try:
            self.is_asked_for  # noqa: B018 - cheaper than asking whether it has it, and there are many
        except AttributeError:
            what = f"{self.kind} {getattr(self, 'name', '')}".strip() or type(self).__name__.lower()
            logger.warning("%s was not awaited, so it does not happen; write: await ctx.…", what)


@dataclass(slots=True, eq=False)
class RunStep[R](Operation[R]):
    """Run a step."""

    step: "Step[*tuple[Any, ...], Any]"
    args: tuple[Any, ...]
    undo: Undo | None = None
    kind: ClassVar[str] = "step"

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.step.name


@dataclass(slots=True, eq=False)
class RunTransaction[R](Operation[R]):
    """Run a transaction function, exactly once, with its checkpoint."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    undo: Undo | None = None
    kind: ClassVar[str] = "transaction"

    @property
    def name(self) -> str:  # type: ignore[override]
        return name_of(self.function)


@dataclass(slots=True, eq=False)
class RunChild[R](Operation[R]):
    """Start another workflow and wait for its result."""

    workflow: "AnyWorkflow"
    args: tuple[Any, ...]
    undo: Undo | None = None
    options: StartOptions = AS_ITS_WORKFLOW_SAYS
    kind: ClassVar[str] = "child"

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.workflow.name


@dataclass(slots=True, eq=False)
class StartRun(Operation[str]):
    """Start another workflow that goes on by itself; gives the id of its run."""

    workflow: "AnyWorkflow"
    args: tuple[Any, ...]
    options: StartOptions = AS_ITS_WORKFLOW_SAYS
    kind: ClassVar[str] = "start"

    @property
    def is_awaited(self) -> bool:
        """With an id of its own it is a transaction: whether somebody has that id must be asked."""
        return self.options.id is not None

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.workflow.name


@dataclass(slots=True, eq=False)
class RunUndo(Operation[None]):
    """Undo what an earlier operation did, or may have done."""

    target: str  # the operation that is undone
    function: Undo
    args: tuple[Any, ...]  # the result or None, then the operation's own arguments
    transactional: bool
    kind: ClassVar[str] = "undo"

    @property
    def name(self) -> str:  # type: ignore[override]
        return undo_name(self.function)


@dataclass(slots=True, eq=False)
class Sleep(Operation[None]):
    """Wait for some time."""

    seconds: float
    kind: ClassVar[str] = "sleep"
    name: str = "sleep"


@dataclass(slots=True, eq=False)
class WaitEvent[T](Operation[T]):
    """Wait for an event of a type whose payload has the fields of `match`."""

    event_type: "EventType[T]"
    match: str  # canonical
    timeout_seconds: float | None
    kind: ClassVar[str] = "wait_event"

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.event_type.name


@dataclass(slots=True, eq=False)
class WaitSignal[T](Operation[T]):
    """Wait for a signal."""

    signal: "Signal[T]"
    timeout_seconds: float | None
    kind: ClassVar[str] = "wait_signal"

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.signal.name


@dataclass(slots=True, eq=False)
class WaitUpdate[R](Operation[R]):
    """Wait for an update; gives an `UpdateCall`."""

    update: "Update[Any, Any]"
    timeout_seconds: float | None
    kind: ClassVar[str] = "wait_update"

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.update.name


@dataclass(slots=True, eq=False)
class AskApproval[R](Operation[R]):
    """Ask a person and wait for the decision."""

    name: str
    text: str
    to: str
    timeout_seconds: float | None
    about: Any
    kind: ClassVar[str] = "approval"


@dataclass(slots=True, eq=False)
class Publish(Operation[None]):
    """Append an event to the event log."""

    event: "Event"
    kind: ClassVar[str] = "publish"

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.event.type


@dataclass(slots=True, eq=False)
class SetView(Operation[None]):
    """Store a value that can be read while the run is out of memory."""

    name: str
    value: str
    kind: ClassVar[str] = "view"


@dataclass(slots=True, eq=False)
class Reply(Operation[None]):
    """Answer an update."""

    name: str
    update_id: str
    text: str
    rejected: bool
    kind: ClassVar[str] = "reply"


@dataclass(slots=True, eq=False)
class RaceWon(Operation[int]):
    """The first branch of a race has ended: which one is a row of the history."""

    index: int
    kind: ClassVar[str] = "race"
    name: str = "race"

    def __del__(self) -> None:
        """Nobody has to ask for it: the driver itself begins it."""


@dataclass(slots=True, eq=False)
class Deadline(Operation[None]):
    """The timer of a `ctx.timeout` block; nobody awaits it, its row cancels the block."""

    seconds: float
    kind: ClassVar[str] = "timeout"
    name: str = "timeout"

    def __del__(self) -> None:
        """Nobody has to ask for it: the driver itself begins it."""


@dataclass(slots=True, eq=False)
class SetTags(Operation[None]):
    """Change tags of the run: a value of None takes one away."""

    tags: Mapping[str, str | None]
    kind: ClassVar[str] = "tags"
    name: str = "tags"


@dataclass(slots=True, eq=False)
class ContinueAsNew(Operation[Never]):
    """End the function here and run it again with another input and an empty history."""

    payload: str | None


@dataclass(slots=True, eq=False)
class Gather[R](Operation[list[R]]):
    """Run branches side by side; the first failure cancels and awaits the others."""

    branches: Sequence[Awaitable[R]]
    limit: int | None


@dataclass(slots=True, eq=False)
class Race[R](Operation[tuple[int, R]]):
    """Run branches side by side until one ends; cancels and awaits the others."""

    branches: Sequence[Awaitable[R]]


@dataclass(slots=True, eq=False)
class EnterTimeout(Operation["TimeoutScope"]):
    """Begin a `ctx.timeout` block."""

    seconds: float


@dataclass(slots=True, eq=False)
class ExitTimeout(Operation[None]):
    """End a `ctx.timeout` block."""

    scope: "TimeoutScope"


@dataclass(slots=True, eq=False)
class TimeoutScope:
    """A `ctx.timeout` block that is open."""

    path: str
    expiry: BaseException | None = None  # what ended it, once its time is over
    overruled_by: BaseException | None = None  # a cancellation from further outside, which is how it ends all the same
