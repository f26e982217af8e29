"""What a batch is: so many events of a type that start one run together, or those of a time."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from lib_events.clock import MICROSECOND
from lib_events.event import EventType
from lib_workflows.errors import DefinitionError, TextInvalid
from lib_workflows.values.texts import NAME_CHARACTERS, check_name

if TYPE_CHECKING:
    from lib_workflows.authoring.workflow import AnyWorkflow

MOST_EVENTS = 1_000
SHORTEST = timedelta(milliseconds=1)
LONGEST = timedelta(days=7)  # the event log keeps what came since for the run to look back to
PLAIN = frozenset({"string", "integer", "number", "boolean"})

type Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A run starts when `events` have come, or `timeout` after the first of them: `@workflow(on=…, batch=Batch(…))`.

    With `key`, the name of a field of their payload, the events of each value gather for themselves. A batch starts
    earlier where one more event would make it larger than an input may be. Raises `DefinitionError`.
    """

    events: int
    timeout: timedelta
    key: str | None = None

    def __post_init__(self) -> None:
        """Refuse what can be no batch."""
        if type(self.events) is not int or not 1 <= self.events <= MOST_EVENTS:
            raise DefinitionError(f"events of a batch must be 1 to {MOST_EVENTS:,}, got {self.events!r:.100}")
        if not isinstance(self.timeout, timedelta) or not SHORTEST <= self.timeout <= LONGEST:
            raise DefinitionError(
                f"timeout of a batch must be a timedelta of a millisecond to {LONGEST.days} days, "
                f"got {self.timeout!r:.100}; what gathers for longer is a schedule's"
            )
        if self.key is not None:
            try:
                check_name(self.key, "key of a batch", NAME_CHARACTERS)
            except TextInvalid as error:
                raise DefinitionError(str(error)) from error

    @property
    def timeout_micros(self) -> int:
        """The time in microseconds."""
        return self.timeout // MICROSECOND


def check_batch(workflow: "AnyWorkflow") -> None:
    """Refuse a batch that could start no run; raises `DefinitionError`."""
    batch, who = workflow.batch, f"workflow {workflow.name}"
    if batch is None:
        return
    if not isinstance(batch, Batch):
        raise DefinitionError(f"batch of {who} must be Batch(events=…, timeout=…), got {batch!r:.100}")
    if len(workflow.on) != 1:
        raise DefinitionError(
            f"{who} must start on events of one type to take them in batches, got {len(workflow.on)}; give each type "
            "a workflow of its own"
        )
    if not workflow.takes_input:
        raise DefinitionError(f"{who} must take an input, the list of payloads, got none; add one after ctx")


def check_input_of_batch(workflow: "AnyWorkflow") -> None:
    """Refuse an input that is not a list of as many payloads as there may be; raises `DefinitionError`."""
    if workflow.batch is None:
        return
    [event_type] = workflow.on
    _check_key(workflow.batch.key, event_type)
    schema: Schema = workflow.input_schema() or {}
    listed = _resolved(schema, schema)
    problem = _problem_of_list(listed, workflow.batch.events)
    promised: Schema = event_type.schema()
    taken, given = _kind(listed.get("items", {}), schema), _kind(promised, promised)
    if problem is None and "object" in (taken, given) and not PLAIN.isdisjoint((taken, given)):
        problem = f"of {taken}s, where {event_type.name} has {given}s"
    if problem is not None:
        raise DefinitionError(
            f"input of workflow {workflow.name} must be the list of payloads that a batch starts it with, got one "
            f"{problem}; write list[{getattr(event_type.model, '__name__', event_type.model)}]"
        )


def _check_key(key: str | None, event_type: EventType[Any]) -> None:
    schema = event_type.schema()
    promised = _resolved(schema, schema)
    kind, fields = _kind(promised, schema), promised.get("properties")
    if key is None or kind is None or (kind == "object" and (fields is None or key in fields)):
        return
    known = ", ".join(sorted(fields or ())) or "no fields"
    raise DefinitionError(f"key of a batch must be a field of {event_type.name}, which has {known}; got {key!r:.100}")


def _problem_of_list(schema: Schema, events: int) -> str | None:
    if schema.get("type") != "array" or "prefixItems" in schema:
        return "that is no list"
    if schema.get("uniqueItems"):
        return "without order"
    if schema.get("minItems", 0) > 1 or schema.get("maxItems", events) < events:
        return f"that cannot have 1 to {events} of them"
    return None


def _kind(schema: Schema, whole: Schema) -> str | None:
    """The type that JSON Schema has for it, where it is one."""
    found = _resolved(schema, whole).get("type")
    return found if isinstance(found, str) else None


def _resolved(schema: Schema, whole: Schema) -> Schema:
    name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    found: Schema = whole.get("$defs", {}).get(name, schema)
    return found
