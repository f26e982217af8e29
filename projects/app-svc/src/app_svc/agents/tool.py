"""A tool: what an agent can call by name, which rule lets it in, and how its answer is told in so many characters."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import to_json
from starlette.requests import Request

from app_svc.authorization import Caller
from app_svc.permissions import Rule
from lib_auth.principal import Principal
from lib_events.problem import Problem, invalid_input

VALUE_CHARACTERS: Final = 20_000  # of one value, such as a run's result
ANSWER_CHARACTERS: Final = 100_000  # of all that one call is answered


class Arguments(BaseModel):
    """What a tool is called with; agents make things up, so what is not known is refused."""

    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool by somebody whom its rule lets in."""

    arguments: Any  # checked: what the tool's `takes` makes of them
    caller: Caller
    request: Request


@dataclass(frozen=True, slots=True)
class Told:
    """What the agent is told: a document that is JSON, and whether what it asked for has failed."""

    document: Mapping[str, Any]
    has_failed: bool = False


@dataclass(frozen=True, slots=True)
class Effect:
    """What calling a tool may do, as clients ask people before they let an agent call it."""

    reads_only: bool = False
    destroys: bool = True  # or only adds; who knows what a workflow does
    is_idempotent: bool = False
    reaches_out: bool = False  # to whatever a workflow calls


OF_WORKFLOWS: Final = Effect()
LOOK: Final = Effect(reads_only=True, destroys=False, is_idempotent=True)


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool and what clients are told of it."""

    name: str
    title: str
    description: str
    rule: Rule  # that of the route which does the same
    takes: type[Arguments]
    call: Callable[[Call], Awaitable[Told]]
    input_schema: Mapping[str, Any]
    output_schema: Mapping[str, Any] | None = None
    effect: Effect = OF_WORKFLOWS
    for_people_only: bool = False  # it acts for the person who calls, so there must be one

    def is_for(self, principal: Principal) -> bool:
        """Whether `principal` may call it."""
        is_person = not principal.is_service and not principal.actors
        return self.rule.lets_in(principal) and (is_person or not self.for_people_only)

    def read(self, given: Mapping[str, Any]) -> Arguments:
        """Return the arguments; raises the `Problem` 422 that names each at fault."""
        try:
            return self.takes.model_validate(given)
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            raise invalid_input(found, within=("body",)) from error


def schema_of(takes: type[Arguments]) -> dict[str, Any]:
    """The JSON Schema of a tool's arguments, without what only repeats their names: a model reads all of it."""
    schema = takes.model_json_schema()
    properties = {name: _without(each, "title") for name, each in schema["properties"].items()}
    return _without(schema, "title", "description") | {"properties": properties}


def _without(schema: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name not in names}


def shortened(value: Any, limit: int = VALUE_CHARACTERS) -> Any:
    """Return `value`, or where its JSON has more than `limit` characters how it begins, saying so."""
    text = as_text(value)
    return value if len(text) <= limit else {"cut": cut_note(len(text), limit), "begins": text[:limit]}


def cut_note(length: int, limit: int) -> str:
    """How a value that was cut says so."""
    return f"only the first {limit} of {length} characters of its JSON; REST has all of it"


def as_text(value: Any) -> str:
    """The JSON of what an agent is told."""
    return to_json(value, inf_nan_mode="null").decode()


def explained(problem: Problem) -> str:
    """What is in the way, and what to do, for a model to read."""
    first = f"{problem.title}: {problem.detail}" if problem.detail else problem.title
    more = problem.fields.get("errors", [])[1:]  # the first is the detail
    lines = [first, *(f"{error.get('pointer') or 'the arguments'}: {error['detail']}" for error in more)]
    return "\n".join(lines)[:VALUE_CHARACTERS]
