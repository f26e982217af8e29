"""The tools beside those of workflows: find, show and await runs, tell them something, answer what they ask."""

from functools import partial
from typing import Annotated, Any, Final

from fastapi import Response
from pydantic import AwareDatetime, Field

from app_svc.agents import told_runs
from app_svc.agents.tool import LOOK, OF_WORKFLOWS, Arguments, Call, Effect, Told, Tool, schema_of, shortened
from app_svc.agents.workflow_tools import LONGEST_WAIT_SECONDS, USUAL_WAIT_SECONDS
from app_svc.approvals import ApprovalRoutes, ApprovalStatus, DecisionBody
from app_svc.authorization import rule_of
from app_svc.page import STORABLE
from app_svc.run_bodies import MOST_TAGS, CancelBody, RunStatus, Tag
from app_svc.run_start import RUN_ID
from app_svc.runs import RunRoutes
from app_svc.updates import UpdateRoutes

LONGEST_LIST: Final = 50
MOST_STEPS: Final = 50

RunId = Annotated[str, Field(pattern=RUN_ID, description="The run's id")]
MessageName = Annotated[str, Field(min_length=1, max_length=128, pattern=STORABLE)]
CursorText = Annotated[str | None, Field(max_length=500, description="The `next_cursor` of the page before")]
Wait = Annotated[float, Field(ge=0, le=LONGEST_WAIT_SECONDS)]
Key = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=255,
        pattern=STORABLE,
        description="Give it again when you call again: then it is sent once",
    ),
]


class FindRuns(Arguments):
    """Which runs to list."""

    status: list[RunStatus] = Field(default_factory=list, max_length=20)
    workflow: str | None = Field(default=None, max_length=128, pattern=STORABLE)
    tag: list[Tag] = Field(
        default_factory=list, max_length=MOST_TAGS, description="`name:value`, or `name`; all of them"
    )
    text: str | None = Field(
        default=None, max_length=200, pattern=STORABLE, description="In id, workflow, person or error"
    )
    since: AwareDatetime | None = None
    mine: bool = Field(default=False, description="Only the person's own, also where they may see everybody's")
    cursor: CursorText = None
    limit: int = Field(default=20, ge=1, le=LONGEST_LIST)


class ShowRun(Arguments):
    """Which run to show."""

    run: RunId
    steps: bool = Field(default=False, description="Also what it has done so far, in order")
    steps_cursor: CursorText = None


class WaitForRun(Arguments):
    """Which run to wait for."""

    run: RunId
    wait_seconds: Wait = USUAL_WAIT_SECONDS


class SignalRun(Arguments):
    """What to tell a run."""

    run: RunId
    name: MessageName
    payload: Any = None
    idempotency_key: Key = None


class UpdateRun(SignalRun):
    """What to ask a run."""

    wait_seconds: Wait = USUAL_WAIT_SECONDS


class CancelRun(CancelBody, Arguments):
    """Which run to cancel, and why."""

    run: RunId


class FindApprovals(Arguments):
    """Which approvals to list."""

    status: list[ApprovalStatus] = Field(default=["pending"], max_length=4)
    run: RunId | None = None
    cursor: CursorText = None
    limit: int = Field(default=20, ge=1, le=LONGEST_LIST)


class DecideApproval(DecisionBody, Arguments):
    """What the person decides."""

    approval: str = Field(min_length=1, max_length=200, pattern=STORABLE, description="The approval's id")


def run_tools(runs: RunRoutes, updates: UpdateRoutes, approvals: ApprovalRoutes) -> list[Tool]:
    """Return the tools, as agents are told of them."""
    return [
        _tool(
            "find_runs",
            "List runs of workflows, newest first. Those that agents started have the tag `agent`.",
            ("GET", "/v1/runs"),
            FindRuns,
            partial(_find, runs),
            effect=LOOK,
        ),
        _tool(
            "show_run",
            "Show how far a run is: its status, input, result or error, what it waits for, and on request its steps.",
            ("GET", "/v1/runs/{run_id}"),
            ShowRun,
            partial(_show, runs),
            effect=LOOK,
        ),
        _tool(
            "wait_for_run",
            "Wait until a run has ended, a while at most, and show it. Call it again while the run goes on.",
            ("GET", "/v1/runs/{run_id}"),
            WaitForRun,
            partial(_wait, runs),
            effect=LOOK,
        ),
        _tool(
            "signal_run",
            "Tell a run something that it waits for; it is kept until the run comes to it.",
            ("POST", "/v1/runs/{run_id}/signals/{name}"),
            SignalRun,
            partial(_signal, runs),
        ),
        _tool(
            "update_run",
            "Send a run an update, which it answers or rejects, and wait for its answer.",
            ("POST", "/v1/runs/{run_id}/updates/{name}"),
            UpdateRun,
            partial(_update, updates),
        ),
        _tool(
            "cancel_run",
            "Cancel a run: it undoes what it did, then ends as cancelled.",
            ("POST", "/v1/runs/{run_id}/cancel"),
            CancelRun,
            partial(_cancel, runs),
            effect=Effect(is_idempotent=True),
        ),
        _tool(
            "find_approvals",
            "List what runs ask the person, newest first; by default what is not decided yet.",
            ("GET", "/v1/approvals"),
            FindApprovals,
            partial(_find_approvals, approvals),
            effect=LOOK,
        ),
        _tool(
            "decide_approval",
            "Approve or reject in the person's name, for good. Ask the person first: the decision is theirs.",
            ("POST", "/v1/approvals/{approval_id}/decision"),
            DecideApproval,
            partial(_decide, approvals),
        ),
    ]


def _tool(
    name: str,
    description: str,
    route: tuple[str, str],
    takes: type[Arguments],
    call: Any,
    *,
    effect: Effect = OF_WORKFLOWS,
) -> Tool:
    """A tool that does what a route does, for whom the route lets in."""
    return Tool(
        name=name,
        title=name.replace("_", " ").capitalize(),
        description=description,
        rule=rule_of(*route),
        takes=takes,
        call=call,
        input_schema=schema_of(takes),
        effect=effect,
    )


async def _find(runs: RunRoutes, call: Call) -> Told:
    given: FindRuns = call.arguments
    page = await runs.list(
        call.caller,
        status=given.status,
        workflow=given.workflow,
        tag=given.tag,
        q=given.text,
        since=given.since,
        mine=given.mine,
        cursor=given.cursor,
        limit=given.limit,
    )
    return Told({"runs": [told_runs.brief(run) for run in page.items], "next_cursor": page.next_cursor})


async def _show(runs: RunRoutes, call: Call) -> Told:
    given: ShowRun = call.arguments
    told = told_runs.whole(await runs.show(given.run, call.caller))
    if given.steps:
        page = await runs.history(given.run, call.caller, cursor=given.steps_cursor, limit=MOST_STEPS)
        told |= {"steps": [told_runs.step(entry) for entry in page.items], "next_steps_cursor": page.next_cursor}
    return Told(told)


async def _wait(runs: RunRoutes, call: Call) -> Told:
    given: WaitForRun = call.arguments
    await runs.desk.find(given.run, call.caller)  # whose it is not does not learn when it ends
    await runs.desk.wait_ended(given.run, given.wait_seconds)
    return Told(told_runs.whole(await runs.show(given.run, call.caller)))


async def _signal(runs: RunRoutes, call: Call) -> Told:
    given: SignalRun = call.arguments
    run = await runs.signal(
        given.run, given.name, call.caller, payload=given.payload, idempotency_key=given.idempotency_key
    )
    return Told(told_runs.brief(run))


async def _update(updates: UpdateRoutes, call: Call) -> Told:
    given: UpdateRun = call.arguments
    answer = await updates.update(
        given.run,
        given.name,
        call.caller,
        Response(),
        payload=given.payload,
        idempotency_key=given.idempotency_key,
        prefer=f"wait={given.wait_seconds:.0f}",
    )
    told = {"run": given.run, "update": answer.id, "status": answer.status, "reply": shortened(answer.reply)}
    if answer.status == "pending":
        told["next"] = "The run has not answered yet. Call again with the same idempotency_key to read its answer."
    return Told(told)


async def _cancel(runs: RunRoutes, call: Call) -> Told:
    given: CancelRun = call.arguments
    run = await runs.cancel(given.run, call.caller, body=CancelBody(reason=given.reason))
    return Told(told_runs.brief(run))


async def _find_approvals(approvals: ApprovalRoutes, call: Call) -> Told:
    given: FindApprovals = call.arguments
    page = await approvals.get_approvals(
        call.caller, status=given.status, run=given.run, cursor=given.cursor, limit=given.limit
    )
    return Told({"approvals": [told_runs.approval(asked) for asked in page.items], "next_cursor": page.next_cursor})


async def _decide(approvals: ApprovalRoutes, call: Call) -> Told:
    given: DecideApproval = call.arguments
    body = DecisionBody(approved=given.approved, comment=given.comment, form=given.form)
    return Told(told_runs.approval(await approvals.decide(given.approval, body, call.caller)))
