"""From a request to a run: what a start may say, checked against the workflow's schema before anything is stored."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from app_svc.authorization import Caller
from app_svc.page import STORABLE
from lib_events.clock import to_micros
from lib_events.event import current_cause
from lib_events.problem import Problem, invalid_input
from lib_workflows import Registry, Workflow
from lib_workflows.commands import OnConflict, StartRequest
from lib_workflows.errors import PayloadInvalid, UnknownWorkflow
from lib_workflows.schedule import RUN_PREFIX

RUN_ID = r"^[A-Za-z0-9._~-]{1,128}$"
TAG_NAME = r"^[A-Za-z0-9._-]{1,64}$"
WAIT_LIMIT_SECONDS = 60.0

type Place = tuple[str | int, ...]


class StartBody(BaseModel):
    """A run to start."""

    model_config = ConfigDict(extra="forbid")

    workflow: str = Field(max_length=128, examples=["order"])
    input: Any = Field(default=None, description="What the workflow's `input_schema` describes")
    id: str | None = Field(
        default=None, pattern=RUN_ID, description="The same id, workflow and input mean the same run"
    )
    queue: str | None = Field(default=None, min_length=1, max_length=128, pattern=STORABLE)
    priority: int = Field(default=0, ge=-1_000, le=1_000, description="Higher runs earlier")
    delay_seconds: float = Field(default=0, ge=0, le=366 * 86_400)
    deadline: AwareDatetime | None = Field(default=None, description="After it the run is cancelled")
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
) -> Workflow[*tuple[Any, ...], Any]:
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
    workflow = find_workflow(registry, body.workflow, status=422, place=place)
    now = datetime.now(UTC)
    return StartRequest(
        workflow=workflow.name,
        version=workflow.version,
        queue=body.queue or workflow.queue,
        input=check_input(workflow, body.input, place=place),
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


def check_run_id(run_id: str | None, *, place: Place = ()) -> None:
    """Keep the ids of scheduled runs for their schedules: whoever took one before would take its time, too."""
    if run_id is not None and run_id.startswith(RUN_PREFIX):
        detail = f"must not begin with {RUN_PREFIX}: such runs are started by schedules; choose another"
        raise invalid_input([{"loc": ("body", *place, "id"), "msg": detail}])


def check_input(workflow: Workflow[*tuple[Any, ...], Any], value: Any, *, place: Place = ()) -> str | None:
    """Return the canonical text of a workflow's input; raises `PayloadTooLarge`, or the `Problem` 422 that names each
    field at fault.
    """
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


def read_wait(prefer: str | None) -> float | None:
    """Return the seconds of `Prefer: wait=S` (RFC 7240 section 4.3), at most a minute; others are ignored."""
    found = re.search(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,6})\"?\s*(?:$|[,;])", prefer or "", re.IGNORECASE)
    return min(float(found[1]), WAIT_LIMIT_SECONDS) if found else None
