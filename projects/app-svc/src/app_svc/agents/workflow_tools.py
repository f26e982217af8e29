"""Each workflow that people may start as a tool: its name, its docstring, its input and what comes of it."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import Field

from app_svc.agents import told_runs
from app_svc.agents.tool import Arguments, Call, Effect, Told, Tool, schema_of
from app_svc.authorization import rule_of
from app_svc.page import STORABLE
from app_svc.run_start import StartBody, given_by_events
from app_svc.runs import RunRoutes
from lib_workflows import Registry
from lib_workflows.authoring.workflow import AnyWorkflow

PREFIX: Final = "start_"
NAME_CHARACTERS: Final = 64  # what clients take: [a-zA-Z0-9_-]{1,64}
DIGEST_CHARACTERS: Final = 8
DESCRIPTION_CHARACTERS: Final = 2_000
LONGEST_WAIT_SECONDS: Final = 25.0  # clients give up on an answer after 30 s
USUAL_WAIT_SECONDS: Final = 10.0
AGENT_TAG: Final = "agent"  # by it runs are found that agents have started
TAG_CHARACTERS: Final = 256


class StartArguments(Arguments):
    """What every workflow's tool takes; `input` is the workflow's own."""

    input: Any = None
    idempotency_key: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        pattern=STORABLE,
        description="Choose one for each thing to do and give it again when you call again: then it is done once",
    )
    wait_seconds: float = Field(
        default=USUAL_WAIT_SECONDS,
        ge=0,
        le=LONGEST_WAIT_SECONDS,
        description="So long to wait for the result; the run goes on in any case",
    )


def workflow_tools(registry: Registry, runs: RunRoutes) -> Iterator[Tool]:
    """Yield the tools of the newest versions of all workflows that people may start."""
    for workflow in registry.newest():
        if not given_by_events(workflow):
            yield _tool(workflow, runs)


def tool_name(workflow: str) -> str:
    """The name of a workflow's tool; where characters or length do not fit, a digest keeps two of them apart."""
    plain = PREFIX + re.sub(r"[^a-zA-Z0-9_-]", "_", workflow)
    if plain == PREFIX + workflow and len(plain) <= NAME_CHARACTERS:
        return plain
    digest = hashlib.blake2b(workflow.encode(), digest_size=DIGEST_CHARACTERS // 2).hexdigest()
    return f"{plain[: NAME_CHARACTERS - DIGEST_CHARACTERS - 1]}_{digest}"


def _tool(workflow: AnyWorkflow, runs: RunRoutes) -> Tool:
    return Tool(
        name=tool_name(workflow.name),
        title=f"Start {workflow.name}",
        description=_description(workflow),
        rule=rule_of("POST", "/v1/runs"),
        takes=StartArguments,
        call=Start(workflow.name, runs),
        input_schema=_input_schema(workflow),
        output_schema=_output_schema(workflow),
        effect=Effect(reaches_out=True),
        for_people_only=bool(workflow.acts_for_starter),
    )


def _description(workflow: AnyWorkflow) -> str:
    """The docstring, and what every start is like."""
    said = workflow.description[:DESCRIPTION_CHARACTERS]
    lines = [said, "", f"Starts a durable run of the workflow {workflow.name} for the person who is signed in."]
    if workflow.acts_for_starter:
        services = ", ".join(each.resource for each in workflow.acts_for_starter)
        lines.append(f"It acts for that person at {services}, once they have allowed it.")
    return "\n".join(lines).strip()


def _input_schema(workflow: AnyWorkflow) -> dict[str, Any]:
    """An object whose `input` is what the workflow takes; references are from the root, so `$defs` go there."""
    schema = schema_of(StartArguments)
    own = workflow.input_schema()
    if own is None:
        del schema["properties"]["input"]
        return schema
    own, definitions = _without_definitions(own)
    schema["properties"]["input"] = own
    if not workflow.input_is_optional:
        schema["required"] = ["input"]
    return schema | definitions


def _output_schema(workflow: AnyWorkflow) -> dict[str, Any]:
    own, definitions = _without_definitions(workflow.output_schema())
    return {
        "type": "object",
        "properties": {
            "run": {"type": "string", "description": "The run's id"},
            "status": {"type": "string"},
            "result": own,
            "result_cut": {"type": "object", "description": "How a result begins that is too large to be told"},
        },
        "required": ["run", "status"],
    } | definitions


def _without_definitions(schema: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    rest = {name: value for name, value in schema.items() if name != "$defs"}
    return rest, {"$defs": schema["$defs"]} if "$defs" in schema else {}


@dataclass(frozen=True, slots=True)
class Start:
    """Starts a run as `POST /v1/runs` does, and waits a little for its end."""

    workflow: str
    runs: RunRoutes

    async def __call__(self, call: Call) -> Told:
        """Start a run; raises a `Problem`."""
        given: StartArguments = call.arguments
        tags = {AGENT_TAG: call.caller.principal.client_id[:TAG_CHARACTERS]}
        body = StartBody(workflow=self.workflow, input=given.input, tags=tags)
        run = await self.runs.begin(body, call.caller, call.request, idempotency_key=given.idempotency_key)
        if given.wait_seconds and await self.runs.desk.wait_ended(run.id, given.wait_seconds):
            run = await self.runs.desk.show(run.id, call.caller)
        told = told_runs.whole(run)
        told.pop("input", None)  # it is what was just given
        if run.status == "completed":
            told.pop("result", None)
            told |= told_runs.result(run)
        return Told(told, has_failed=run.error is not None)
