"""Workflows: ordinary async functions whose every effect goes through their context, so that they survive crashes."""

import inspect
import re
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, Protocol

from lib_events.clock import MICROSECOND
from lib_events.event import EventType
from lib_workflows.authoring.batch import Batch, check_batch, check_input_of_batch
from lib_workflows.authoring.context import Context
from lib_workflows.authoring.delegation import Delegation, check_delegations
from lib_workflows.authoring.queue import Queue, QueueLimits, check_queue_name, key_of
from lib_workflows.authoring.timing import TIMINGS, Timing
from lib_workflows.errors import DefinitionError, UnknownWorkflow
from lib_workflows.values.codec import Codec, Signature
from lib_workflows.values.durations import check_deadline
from lib_workflows.values.failure import check_declared

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
DEFAULT_QUEUE = "default"

type AnyWorkflow = Workflow[*tuple[Any, ...], Any]


class Workflow[*In, R]:
    """A durable function of a context and at most one input; made by `@workflow`."""

    def __init__(
        self,
        function: Callable[[Context, *In], Coroutine[Any, Any, R]],
        *,
        name: str,
        version: int,
        queue: str | Queue,
        on: tuple[EventType[Any], ...],
        type: str,  # noqa: A002 - the word of the catalogue
        errors: tuple[type[Exception], ...],
        schedule: Timing | None = None,
        requires: frozenset[str] = frozenset(),
        acts_for_starter: tuple[Delegation, ...] = (),
        batch: Batch | None = None,
        deadline: timedelta | None = None,
    ) -> None:
        self.function = function
        self.name = name
        self.version = version
        self.queue = queue.name if isinstance(queue, Queue) else check_queue_name(queue)
        self.limits = queue.limits if isinstance(queue, Queue) else None  # of its queue, where they are declared
        self.queue_key = self.limits.key if self.limits else None  # the field by which its runs take turns there
        self.on = on
        self.type = type
        self.errors = errors
        self.schedule = schedule
        self.requires = requires
        self.acts_for_starter = acts_for_starter
        self.batch = batch  # how events gather before they start a run
        self.deadline = check_deadline(deadline, f"deadline of workflow {name}")  # of its runs, after their beginning
        self.deadline_micros = None if deadline is None else deadline // MICROSECOND
        self.description = inspect.getdoc(function) or ""
        self.signature = Signature(function, f"workflow {name}").drop_first()
        self.__doc__ = function.__doc__

    @property
    def takes_input(self) -> bool:
        """Whether it has an input."""
        return bool(self.signature.parameters)

    @property
    def input_is_optional(self) -> bool:
        """Whether it may be started without its input."""
        parameters = self.signature.parameters
        return not parameters or parameters[0].default is not inspect.Parameter.empty

    def input_codec(self) -> Codec[Any]:
        """The codec of the one input."""
        return self._input

    def key_in(self, queue: str, payload: str | None) -> str | None:
        """With whom a run of this input takes turns in that queue."""
        return key_of(self.queue_key, payload) if queue == self.queue else None

    def encode_input(self, args: tuple[Any, ...]) -> str | None:
        """Encode what a caller gave; None when it has no input. Raises `PayloadInvalid` or `TypeError`."""
        if len(args) > len(self.signature.parameters) or (not args and not self.input_is_optional):
            wanted = "one input" if self.takes_input else "no input"
            raise TypeError(f"workflow {self.name} must be started with {wanted}, got {len(args)}")
        return self._input.encode(args[0]) if args else None

    def validate_input(self, value: Any) -> str | None:
        """Check a JSON value as the input and return its canonical text; raises `PayloadInvalid`."""
        if not self.takes_input or (value is None and self.input_is_optional):
            if value is not None:
                raise TypeError(f"workflow {self.name} must be started with no input, got one")
            return None
        return self._input.encode(self._input.validate(value))

    def decode_input(self, text: str | None) -> tuple[Any, ...]:
        """The arguments after the context."""
        return () if text is None else (self._input.decode(text),)

    def input_schema(self) -> dict[str, Any] | None:
        """The JSON Schema of the input, or None when there is none."""
        return self._input.schema() if self.takes_input else None

    def output_schema(self) -> dict[str, Any]:
        """The JSON Schema of the result."""
        return self.signature.result.schema("serialization")

    @cached_property
    def _input(self) -> Codec[Any]:
        parameters = self.signature.parameters
        codec = self.signature.argument(parameters[0]) if parameters else Codec[Any](None, "")
        codec.what = "input"
        return codec

    def __repr__(self) -> str:
        return f"<workflow {self.name} version {self.version}>"


class _WorkflowDecorator(Protocol):
    def __call__[*A, R](self, function: Callable[[Context, *A], Coroutine[Any, Any, R]], /) -> Workflow[*A, R]: ...


def workflow(
    *,
    name: str,
    version: int = 1,
    queue: str | Queue = DEFAULT_QUEUE,
    on: EventType[Any] | Sequence[EventType[Any]] = (),
    type: str = "workflow",  # noqa: A002 - the word of the catalogue
    errors: tuple[type[Exception], ...] = (),
    schedule: Timing | None = None,
    requires: Collection[str] = (),
    acts_for_starter: Delegation | Sequence[Delegation] = (),
    batch: Batch | None = None,
    deadline: timedelta | None = None,
) -> _WorkflowDecorator:
    """Make an `async def` a workflow: it takes the context and at most one input, and returns any typed value.

    Runs of one `version` finish on it: several versions of a name may be registered at once. `on` starts exactly
    one run for each event of that type, with the event's payload as input; with a `batch` one for so many of them, with
    the list of their payloads. `type` is a word for the catalogue
    ("orchestrated saga"), the docstring is its description. `queue` names the queue of its runs, or declares its
    limits, too: `Queue("mail", concurrency=5)`. Exceptions in `errors` reach callers as themselves.
    `schedule` (`Cron("0 6 * * *")`) starts a run, without input, at each of its times; the schedule has the workflow's
    name. Runs begin and go on only on workers that have every tag in `requires` ({"gpu"}). `acts_for_starter` says what
    its steps may do at other services for the person who starts it; people read it before they do. A run that has not
    ended `deadline` after its start (or its delay) is cancelled and fails, however it was started, unless the start
    itself names a deadline.
    """
    triggers = tuple(on) if isinstance(on, list | tuple) else (on,)

    def decorate[*A, R](function: Callable[[Context, *A], Coroutine[Any, Any, R]]) -> Workflow[*A, R]:
        _check(function, name, version, triggers)
        check_declared(errors, f"errors of workflow {name}")
        made = Workflow(
            function,
            name=name,
            version=version,
            queue=queue,
            on=triggers,
            type=type,
            errors=errors,
            schedule=schedule,
            requires=check_worker_tags(requires, f"requires of workflow {name}"),
            acts_for_starter=check_delegations(acts_for_starter, name),
            batch=batch,
            deadline=deadline,
        )
        check_batch(made)
        if batch is not None and made.signature.is_known:
            check_input_of_batch(made)
        _check_schedule(made)
        return made

    return decorate


def _check(function: Callable[..., Any], name: str, version: int, triggers: tuple[EventType[Any], ...]) -> None:
    if not NAME_PATTERN.fullmatch(name):
        raise DefinitionError(f"workflow name must match {NAME_PATTERN.pattern}, got {name!r}")
    if type(version) is not int or version < 1:
        raise DefinitionError(f"version of workflow {name} must be a whole number, 1 or more, got {version!r}")
    if not inspect.iscoroutinefunction(function):
        raise DefinitionError(f"workflow {name} must be an async def, got {function!r}")
    count = len(Signature(function, f"workflow {name}").parameters)
    if count not in (1, 2):
        raise DefinitionError(f"workflow {name} must take ctx and at most one input, got {count} parameters")
    for trigger in triggers:
        if not isinstance(trigger, EventType):
            raise DefinitionError(f"workflow {name} must start on an EventType(…), got {trigger!r:.100}")
        if trigger.packed:
            raise DefinitionError(f"workflow {name} must start on an event with a row of its own, got {trigger!r}")


def check_worker_tags(tags: Collection[str], what: str) -> frozenset[str]:
    """The tags that a worker has or a workflow requires; raises `DefinitionError`."""
    if isinstance(tags, str) or not all(isinstance(tag, str) and NAME_PATTERN.fullmatch(tag) for tag in tags):
        raise DefinitionError(f"{what} must be a set of names that match {NAME_PATTERN.pattern}, got {tags!r:.100}")
    return frozenset(tags)


def _check_schedule(workflow: AnyWorkflow) -> None:
    if workflow.schedule is None:
        return
    if not isinstance(workflow.schedule, TIMINGS):
        raise DefinitionError(
            f"schedule of workflow {workflow.name} must be Cron(…), Every(…), At(…) or Between(…), "
            f"got {workflow.schedule!r:.80}"
        )
    if not workflow.input_is_optional:
        raise DefinitionError(
            f"workflow {workflow.name} must do without input to declare a schedule; give it a default, or make the "
            "schedule with its input"
        )


def _check_queues(workflows: Sequence[AnyWorkflow]) -> None:
    declared: dict[str, tuple[AnyWorkflow, QueueLimits]] = {}
    for entry in workflows:
        if entry.limits is None:
            continue
        first, limits = declared.setdefault(entry.queue, (entry, entry.limits))
        if limits != entry.limits:
            raise DefinitionError(
                f"queue {entry.queue} must have one declaration of its limits, got two, of {first!r} and {entry!r}; "
                "share one Queue(…)"
            )


@dataclass(frozen=True, slots=True)
class Registry:
    """The workflows a process holds, by name and version."""

    workflows: tuple[AnyWorkflow, ...]
    _held: Mapping[tuple[str, int | None], AnyWorkflow]

    @classmethod
    def of(cls, workflows: Sequence[AnyWorkflow]) -> "Registry":
        """Gather `workflows`; raises `DefinitionError` when two differ under one name and version."""
        held: dict[tuple[str, int | None], AnyWorkflow] = {}
        for entry in workflows:
            if not isinstance(entry, Workflow):
                raise DefinitionError(f"workflows must be functions decorated with @workflow, got {entry!r:.100}")
            if held.setdefault((entry.name, entry.version), entry) is not entry:
                raise DefinitionError(f"workflow {entry.name} version {entry.version} must be registered once")
        registry = cls(tuple(held.values()), held)
        for entry in registry.workflows:
            check_input_of_batch(entry)  # its types may have been written after it
        _check_queues(registry.newest())
        return registry

    def find(self, name: str, version: int | None = None) -> AnyWorkflow:
        """The workflow of that name, by default its newest version; raises `UnknownWorkflow`."""
        if version is None:
            version = max((w.version for w in self.workflows if w.name == name), default=None)
        found = self._held.get((name, version))
        if found is None:
            raise UnknownWorkflow(name, version, sorted({w.name for w in self.workflows}))
        return found

    def newest(self) -> list[AnyWorkflow]:
        """The newest version of each name, by name."""
        return [self.find(name) for name in sorted({w.name for w in self.workflows})]

    def holds(self, name: str, version: int) -> bool:
        """Whether that version can run here."""
        return (name, version) in self._held
