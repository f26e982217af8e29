"""Starting a workflow: a form made from its input schema, or JSON by hand; both say the same."""

import json
import shlex
import uuid
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import htpy as h
from starlette.responses import Response

from gui_proj.app_service import AppServiceRefused
from gui_proj.components import card, csrf_field, link_to_run, notice, prose, query, type_badge
from gui_proj.icons import icon
from gui_proj.input_draft import InputDraft, input_view, read_input, read_tags, refused_input, shown_value
from gui_proj.json_view import json_text
from gui_proj.moments import seconds_words
from gui_proj.page import heading
from gui_proj.refusals import Refusal, refusal_notice
from gui_proj.resources import Delegation, Workflow, starts_by_event_alone
from gui_proj.schema import MISSING, Field, Json, Missing, read_schema
from gui_proj.triggers import triggers
from gui_proj.visit import Visit


@dataclass(frozen=True, slots=True)
class Draft:
    """The form as it stands: what is filled in, and what is wrong with it."""

    input: InputDraft = field(default_factory=InputDraft)
    tags: str = ""
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    refusal: Refusal = field(default_factory=Refusal)


async def show(visit: Visit) -> Response:
    workflow = await _workflow(visit)
    tab = "json" if visit.query("tab") == "json" else "form"
    return await _page(visit, workflow, Draft(InputDraft(await _input_of(visit), tab=tab)))


async def submit(visit: Visit) -> Response:
    """Starts the workflow, or shows the form again: with another item, on the other tab, or with what is wrong."""
    workflow = await _workflow(visit)
    asked = read_schema(workflow["input_schema"])
    given, only_redraw = await read_input(visit, asked)
    draft = Draft(given, visit.field("_tags"), visit.key)
    if only_redraw:
        return await _page(visit, workflow, draft)
    if given.errors:
        return await _page(visit, workflow, draft, status=422)
    body: dict[str, Any] = {"workflow": workflow["name"], "input": given.sent}
    if draft.tags:
        body["tags"] = read_tags(draft.tags)
    try:
        run = await visit.post("/v1/runs", body, headers={"Idempotency-Key": draft.key})
    except AppServiceRefused as error:
        if error.status not in {400, 403, 409, 413, 422} or (error.status == 403 and not workflow["acts_for_starter"]):
            raise
        return await _page(visit, workflow, _refused(draft, asked, error), status=error.status)
    return visit.redirect(link_to_run(run["id"]))


async def _workflow(visit: Visit) -> Workflow:
    found: Workflow = await visit.get(f"/v1/workflows/{quote(visit.path('name'), safe='')}")
    return found


async def _input_of(visit: Visit) -> Json | Missing:
    """For "start one like this": the input of the run named in the address."""
    run_id = visit.query("like")
    if not run_id:
        return MISSING
    run = await visit.get(f"/v1/runs/{quote(run_id, safe='')}")
    return run["input"]


def _refused(draft: Draft, asked: Field, error: AppServiceRefused) -> Draft:
    """The AppService's errors at their fields; what has no field stands above the form."""
    given, stray = refused_input(asked, draft.input, error.field_errors)
    refusal = Refusal.of(error, stray=stray, at_fields=bool(given.errors))
    return Draft(given, draft.tags, uuid.uuid4().hex, refusal)


def in_short(workflow: Workflow) -> str:
    """What of a workflow fits into a line: its version, where its runs wait, and within which time they must end."""
    limit = workflow["deadline_seconds"]
    ends = "" if limit is None else f" · ends within {seconds_words(limit)}"
    return f"v{workflow['version']} · queue {workflow['queue']}{ends}"


async def _page(visit: Visit, workflow: Workflow, draft: Draft, *, status: int = 200) -> Response:
    asked, by_hand = read_schema(workflow["input_schema"]), not starts_by_event_alone(workflow)
    return await visit.page(
        f"Start {workflow['name']}" if by_hand else workflow["name"],
        heading(
            workflow["name"],
            above=h.a(href="/workflows")["Workflows"],
            below=h.div(".under")[type_badge(workflow["type"]), h.span(".muted")[in_short(workflow)]],
            beside=[
                visit.may_manage
                and by_hand
                and h.a(".button", href=query("/schedules/+new", workflow=workflow["name"]))[
                    icon("calendar"), "On a schedule"
                ],
                h.a(".button", href=query("/runs", workflow=workflow["name"]))[icon("runs"), "Its runs"],
            ],
        ),
        _description(workflow["description"]),
        by_hand and triggers(workflow),
        _acting(workflow["acts_for_starter"]),
        card(_form(visit, workflow, asked, draft), style="narrow") if by_hand else _by_itself(workflow),
        status=status,
    )


def _description(text: str | None) -> h.Node:
    paragraphs = [" ".join(part.split()) for part in (text or "").split("\n\n") if part.strip()]
    return h.div(".prose")[(h.p[prose(each)] for each in paragraphs)]


def _acting(delegations: list[Delegation]) -> h.Node:
    """What the workflow does in the person's name: read before they start it."""
    if not delegations:
        return None
    days = max(each["lasts_seconds"] for each in delegations) / 86_400
    return notice(
        [
            h.strong["This workflow acts for you."],
            h.ul[
                (h.li["At ", h.code[each["resource"]], " it may: ", ", ".join(each["scope"])] for each in delegations)
            ],
            f"It ends with the run, after {days:g} days at the latest. You see and stop it under Apps in your account.",
        ]
    )


def _by_itself(workflow: Workflow) -> h.Node:
    events = h.code[", ".join(workflow["on"])]
    return notice(["It starts by itself on ", events, ", with what that says. Nobody starts it by hand."])


def _form(visit: Visit, workflow: Workflow, asked: Field, draft: Draft) -> h.Element:
    return h.form(".start", method="post", enctype="multipart/form-data", action=visit.request.url.path)[
        csrf_field(visit.csrf),
        h.input(type="hidden", name="_key", value=draft.key),
        # Enter in a field presses the first button of a form: that must be the one that starts.
        h.button(".hidden", type="submit", tabindex="-1", aria_hidden="true")["Start"],
        refusal_notice(visit, draft.refusal, has_errors=bool(draft.input.errors)),
        input_view(asked, draft.input, _beside_json(workflow, asked, draft.input)),
        h.details(".more")[
            h.summary["Options"],
            h.div(".field")[
                h.label(for_="_tags")["Tags"],
                h.p(".hint", id="_tags-hint")["To find the run again: ", h.code["team=blue, urgent"]],
                h.input(id="_tags", name="_tags", value=draft.tags, aria_describedby="_tags-hint", autocomplete="off"),
            ],
        ],
        h.div(".form-foot")[h.button(".primary", type="submit")[icon("play"), "Start"]],
    ]


def _beside_json(workflow: Workflow, asked: Field, draft: InputDraft) -> h.Node:
    value = json.dumps(shown_value(asked, draft))
    return [
        h.details(".more")[
            h.summary["The same from a terminal"],
            h.pre[h.code[f"evs run start {workflow['name']} --input {shlex.quote(value)}"]],
        ],
        h.details(".more")[h.summary["Schema"], h.pre(tabindex="0")[h.code[json_text(workflow["input_schema"])]]],
    ]
