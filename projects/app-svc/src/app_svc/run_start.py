"""From a request to a run: what a start may say, checked against the workflow's schema before anything is stored."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from app_svc.authorization import Caller
from app_svc.page import QUEUE_NAME, STORABLE
from app_svc.permissions import MANAGE
from lib_events.clock import to_micros
from lib_events.event import current_cause, is_reserved
from lib_events.problem import Problem, invalid_input
from lib_workflows import Registry
from lib_workflows.authoring.queue import KEY_CHARACTERS
from lib_workflows.authoring.start_options import OnConflict
from lib_workflows.authoring.workflow import AnyWorkflow
from lib_workflows.errors import PayloadInvalid, UnknownWorkflow
from lib_workflows.runs.commands import StartRequest
from lib_workflows.values.identifiers import GIVEN_PREFIXES

RUN_ID = r"^[A-Za-z0-9._~-]{1,128}$"
TAG_NAME = r"^[A-Za-z0-9._-]{1,64}$"
WAIT_LIMIT_SECONDS = 60.0

type Place = tuple[str | int, ...]


class DebounceBody(BaseModel):
    """Starts that are one run until it begins: `delay_seconds` after the last of them, and with its input."""

    model_config = ConfigDict(extra="forbid")

    key: str = Field(min_length=1, max_length=128, pattern=STORABLE)
    limit_seconds: float | None = Field(
        default=None, gt=0, le=366 * 86_400, description="It begins no later than so long after the first of them"
    )


class StartBody(BaseModel):
    """A run to start."""

    model_config = ConfigDict(extra="forbid")

    workflow: str = Field(max_length=128, examples=["order"])
    input: Any = Field(default=None, description="What the workflow's `input_schema` describes")
    id: str | None = Field(
        default=None, pattern=RUN_ID, description="The same id, workflow and input mean the same run"
    )
    queue: str | None = Field(default=None, min_length=1, max_length=128, pattern=QUEUE_NAME)
    queue_key: str | None = Field(
        default=None,
        min_length=1,
        max_length=KEY_CHARACTERS,
        pattern=STORABLE,
        description="With whom the run takes turns, where runs of its queue do; operators only: by default it follows "
        "from the input",
    )
    priority: int = Field(default=0, ge=-1_000, le=1_000, description="Higher runs earlier")
    delay_seconds: float = Field(default=0, ge=0, le=366 * 86_400)
    debounce: DebounceBody | None = Field(default=None, description="One's own starts of the workflow with this key")
    deadline: AwareDatetime | None = Field(
        default=None, description="After it the run is cancelled; by default as its workflow declares"
    )
    tags: dict[Annotated[str, Field(pattern=TAG_NAME)], Annotated[str, Field(max_length=256, pattern=STORABLE)]] = (
        Field(default_factory=dict, max_length=20)
    )
    on_conflict: OnConflict = Field(
        default="same",
        description="Whether a run that has this id (or idempotency key) already is meant: with the same workflow and "
        "input, an `existing` one of that workflow whatever its input, or never (`fail`)",
    )
    reply_to: str | None = Field(default=None, description="Not offered yet: follow the run's events instead")


def find_workflow(
    registry: Registry, name: str, version: int | None = None, *, status: int, place: Place = ()
) -> AnyWorkflow:
    """Return a workflow, by default its newest version; raises the `Problem` `status`, naming it at `place`."""
    try:
        return registry.find(name, version)
    except UnknownWorkflow as unknown:
        known = [workflow.name for workflow in registry.newest()]
        raise Problem(
            status,
            "unknown-workflow",
            "There is no such workflow",
            f"workflow must be one of {', '.join(known)}, got {name[:128]!r}",
            errors=[{"pointer": "/" + "/".join(map(str, (*place, "workflow"))), "detail": "is not in the catalogue"}],
        ) from unknown


def make_request(
    registry: Registry, body: StartBody, caller: Caller, *, idempotency_key: str | None = None, place: Place = ()
) -> StartRequest:
    """Check `body`, which stands at `place` in the request's document; raises the `Problem` 422."""
    if body.reply_to is not None:
        detail = "reply_to is not offered yet; ask with 'Prefer: wait' or follow /v1/runs/{id}/events"
        raise invalid_input([{"loc": ("body", *place, "reply_to"), "msg": detail}])
    check_run_id(body.id, place=place)
    _check_debounce(body, idempotency_key, place)
    workflow = find_workflow(registry, body.workflow, status=422, place=place)
    now, queue = datetime.now(UTC), _queue_of(body, workflow, caller)
    return StartRequest.of(
        workflow,
        check_input(workflow, body.input, place=place),
        queue=queue,
        queue_key=_key_of(body, caller),
        debounce_key=body.debounce.key if body.debounce else None,
        debounce_until=_debounce_until(body.debounce, now),
        id=body.id,
        priority=body.priority,
        run_at=to_micros(now + timedelta(seconds=body.delay_seconds)) if body.delay_seconds else None,
        deadline_at=to_micros(body.deadline) if body.deadline else None,
        tags=body.tags,
        principal=caller.as_run_principal(),
        idempotency_key=idempotency_key,
        cause=current_cause.get(),
        on_conflict=body.on_conflict,
    )


def _queue_of(body: StartBody, workflow: AnyWorkflow, caller: Caller) -> str:
    """The run's queue; limits that the code declares are not to be gone around by whoever may start a run."""
    queue = body.queue or workflow.queue
    if queue != workflow.queue and workflow.limits is not None and not MANAGE.held_by(caller.principal):
        raise Problem(
            403,
            "queue-limited",
            "The workflow has a queue of its own",
            f"runs of {workflow.name} wait in queue {workflow.queue}, whose limits are declared; leave queue out, or "
            "let an operator start it elsewhere",
        )
    return queue


def _key_of(body: StartBody, caller: Caller) -> str | None:
    """The key that the body says; whoever chose it freely would have as many turns as keys."""
    if body.queue_key is not None and not MANAGE.held_by(caller.principal):
        raise Problem(
            403,
            "queue-limited",
            "Only operators say with whom a run takes turns",
            f"runs of {body.workflow[:128]} take turns by their input; leave queue_key out, or ask an operator",
        )
    return body.queue_key


def _check_debounce(body: StartBody, idempotency_key: str | None, place: Place) -> None:
    if body.debounce is not None and (not body.delay_seconds or body.id is not None or idempotency_key is not None):
        detail = "must be given with delay_seconds, and neither with an id nor an Idempotency-Key"
        raise invalid_input([{"loc": ("body", *place, "debounce"), "msg": detail}])


def _debounce_until(debounce: DebounceBody | None, now: datetime) -> int | None:
    if debounce is None or debounce.limit_seconds is None:
        return None
    return to_micros(now + timedelta(seconds=debounce.limit_seconds))


def check_run_id(run_id: str | None, *, place: Place = ()) -> None:
    """Keep ids that follow from something for what they follow from: whoever took that of a scheduled run before would
    take its time, too, and whoever took that of a run's child would keep it from beginning, or see what it gives.
    """
    if run_id is not None and run_id.startswith(GIVEN_PREFIXES):
        detail = (
            f"must not begin with {' or '.join(GIVEN_PREFIXES)}: such runs are started by schedules, runs and "
            "events; choose another"
        )
        raise invalid_input([{"loc": ("body", *place, "id"), "msg": detail}])
    if run_id in {".", ".."}:
        # RFC 3986 section 5.2.4: clients take these out of a path, and nobody would find the run.
        detail = f"must be neither . nor .., got {run_id!r}: a run is found by it; choose another"
        raise invalid_input([{"loc": ("body", *place, "id"), "msg": detail}])


def check_input(workflow: AnyWorkflow, value: Any, *, place: Place = ()) -> str | None:
    """Return the canonical text of a workflow's input; raises `PayloadTooLarge`, or the `Problem` 422 that names each
    field at fault.
    """
    _check_given_by_people(workflow, place)
    where = ("body", *place, "input")
    if not workflow.takes_input:
        if value is not None:
            raise invalid_input([{"loc": where, "msg": f"{workflow.name} takes no input; leave it out"}])
        return None
    if value is None and workflow.input_is_optional:
        return None
    codec = workflow.input_codec()
    try:
        return codec.encode(codec.validate(value))
    except PayloadInvalid as error:
        cause = error.__cause__
        if isinstance(cause, ValidationError):
            raise invalid_input(cause.errors(include_url=False, include_input=False), within=where) from error
        raise invalid_input([{"loc": where, "msg": str(error)}]) from error


def given_by_events(workflow: AnyWorkflow) -> list[str]:
    """The events of ours that alone may give the workflow its input: it takes for true what nobody else may publish.

    Else whoever may start runs could have an administrator asked in somebody else's name.
    """
    if not workflow.takes_input:
        return []
    return [event_type.name for event_type in workflow.on if is_reserved(event_type.name)]


def _check_given_by_people(workflow: AnyWorkflow, place: Place) -> None:
    if ours := given_by_events(workflow):
        detail = f"{workflow.name} starts by itself on {' and '.join(ours)}, and its input is that event's alone"
        raise invalid_input([{"loc": ("body", *place, "workflow"), "msg": detail}])


def read_wait(prefer: str | None) -> float | None:
    """Return the seconds of `Prefer: wait=S` (RFC 7240 section 4.3), at most a minute; others are ignored."""
    found = re.search(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,6})\"?\s*(?:$|[,;])", prefer or "", re.IGNORECASE)
    return min(float(found[1]), WAIT_LIMIT_SECONDS) if found else None
