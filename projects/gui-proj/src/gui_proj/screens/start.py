"""Starting a workflow: a form made from its input schema, or JSON by hand; both say the same."""

import json
import shlex
import uuid
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import htpy as h
from starlette.datastructures import UploadFile
from starlette.responses import Response

from gui_proj.app_service import AppServiceRefused
from gui_proj.components import card, csrf_field, link_to_run, notice, prose, query, type_badge
from gui_proj.form_fields import FormView
from gui_proj.form_input import FormInput, read_form, read_json
from gui_proj.icons import icon
from gui_proj.json_view import json_text
from gui_proj.page import heading
from gui_proj.resources import Workflow
from gui_proj.schema import MISSING, Field, Json, Kind, Missing, example, read_schema
from gui_proj.visit import Visit


@dataclass(frozen=True, slots=True)
class Draft:
    """The form as it stands: what is filled in, what is wrong with it, and which tab shows it."""

    value: Json | Missing = MISSING
    errors: dict[str, str] = field(default_factory=dict)
    tab: str = "form"
    json_source: str | None = None
    tags: str = ""
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    problem: str = ""


async def show(visit: Visit) -> Response:
    workflow = await _workflow(visit)
    tab = "json" if visit.query("tab") == "json" else "form"
    return await _page(visit, workflow, Draft(tab=tab, value=await _input_of(visit)))


async def submit(visit: Visit) -> Response:
    """Starts the workflow, or shows the form again: with another item, on the other tab, or with what is wrong."""
    workflow = await _workflow(visit)
    asked = read_schema(workflow["input_schema"])
    draft, only_redraw = await _read(visit, asked)
    if only_redraw:
        return await _page(visit, workflow, draft)
    if draft.errors:
        return await _page(visit, workflow, draft, status=422)
    body: dict[str, Any] = {"workflow": workflow["name"], "input": None if draft.value is MISSING else draft.value}
    if draft.tags:
        body["tags"] = read_tags(draft.tags)
    try:
        run = await visit.post("/v1/runs", body, headers={"Idempotency-Key": draft.key})
    except AppServiceRefused as error:
        if error.status not in {400, 409, 413, 422}:
            raise
        return await _page(visit, workflow, _refused(draft, asked, error), status=error.status)
    return visit.redirect(link_to_run(run["id"]))


def read_tags(text: str) -> dict[str, str]:
    """`team=blue, urgent` as names with values."""
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    return {name.strip(): value.strip() for name, _, value in pairs}


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


async def _read(visit: Visit, asked: Field) -> tuple[Draft, bool]:
    """The submitted form, and whether it is only to be drawn again."""
    tab = "json" if visit.field("_from") == "json" else "form"
    read = _read_json(visit.field("_json")) if tab == "json" else await _read_fields(visit, asked)
    value = _rearranged(visit, read.value)
    wanted_tab = visit.field("_tab") or tab
    if tab == "json" and read.errors:
        wanted_tab = "json"  # what cannot be read as JSON cannot be shown as fields
    redraw = any(name in visit.form for name in ("_tab", "_add", "_remove"))
    draft = Draft(
        value,
        read.errors if tab == "json" or not redraw else {},
        wanted_tab,
        visit.field("_json") if tab == wanted_tab == "json" else None,
        visit.field("_tags"),
        visit.field("_key") or uuid.uuid4().hex,
    )
    return draft, redraw


def _read_json(text: str) -> FormInput:
    try:
        return FormInput(read_json(text) if text else MISSING)
    except ValueError as error:
        return FormInput(MISSING, {"": f"Must be JSON: {error}."})


async def _read_fields(visit: Visit, asked: Field) -> FormInput:
    files = {
        name.removesuffix("@file"): await upload.read()
        for name, upload in visit.form.multi_items()
        if isinstance(upload, UploadFile) and upload.filename
    }
    return read_form(asked, visit.form, files)


def _rearranged(visit: Visit, value: Json | Missing) -> Json | Missing:
    """The value with one item more or less, when one of those buttons was pressed."""
    if pointer := visit.field("_add"):
        holder = _at(value, _segments(pointer))
        if isinstance(holder, list):
            holder.append(None)
        elif pointer:
            _put(value, _segments(pointer), [None])
    if pointer := visit.field("_remove"):
        *above, last = _segments(pointer)
        holder = _at(value, above)
        positions = [str(each) for each in visit.form.getlist("input" + pointer.rpartition("/")[0])]
        if isinstance(holder, list) and last in positions:
            del holder[positions.index(last)]
    return value


def _segments(pointer: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def _at(value: Any, segments: list[str]) -> Any:
    for segment in segments:
        if isinstance(value, list) and segment.isdecimal() and int(segment) < len(value):
            value = value[int(segment)]
        elif isinstance(value, dict):
            value = value.get(segment)
        else:
            return None
    return value


def _put(value: Any, segments: list[str], item: Json) -> None:
    holder = _at(value, segments[:-1])
    if isinstance(holder, dict) and segments:
        holder[segments[-1]] = item


def _refused(draft: Draft, asked: Field, error: AppServiceRefused) -> Draft:
    """The AppService's errors at their fields; what has no field stands above the form."""
    errors = error.field_errors
    known = {each.pointer for each in _all_fields(asked, draft.value)}
    stray = [f"{pointer}: {words}" for pointer, words in errors.items() if pointer not in known]
    if draft.tab == "json":
        stray, errors = [f"{pointer or 'input'}: {words}" for pointer, words in errors.items()], {}
    problem = " · ".join(stray) if errors or stray else f"{error.title}. {error.detail}"
    return Draft(draft.value, errors, draft.tab, draft.json_source, draft.tags, uuid.uuid4().hex, problem)


def _all_fields(asked: Field, value: Json | Missing) -> list[Field]:
    found = [asked] if asked.path else []
    inner = list(asked.fields)
    if asked.kind is Kind.ARRAY and isinstance(value, list):
        inner = [asked.item(index) for index in range(len(value))]
    for each in inner:
        below = _at(value, [each.key]) if asked.kind in {Kind.OBJECT, Kind.ARRAY} else value
        found += _all_fields(each, below)
    return found


async def _page(visit: Visit, workflow: Workflow, draft: Draft, *, status: int = 200) -> Response:
    asked = read_schema(workflow["input_schema"])
    return await visit.page(
        f"Start {workflow['name']}",
        heading(
            workflow["name"],
            above=h.a(href="/workflows")["Workflows"],
            below=h.div(".under")[
                type_badge(workflow["type"]), h.span(".muted")[f"v{workflow['version']} · queue {workflow['queue']}"]
            ],
            beside=h.a(".button", href=query("/runs", workflow=workflow["name"]))[icon("runs"), "Its runs"],
        ),
        _description(workflow["description"]),
        card(_form(visit, workflow, asked, draft), style="narrow"),
        status=status,
    )


def _description(text: str | None) -> h.Node:
    paragraphs = [" ".join(part.split()) for part in (text or "").split("\n\n") if part.strip()]
    return h.div(".prose")[(h.p[prose(each)] for each in paragraphs)]


def _form(visit: Visit, workflow: Workflow, asked: Field, draft: Draft) -> h.Element:
    return h.form(".start", method="post", enctype="multipart/form-data", action=visit.request.url.path)[
        csrf_field(visit.csrf),
        h.input(type="hidden", name="_key", value=draft.key),
        h.input(type="hidden", name="_from", value=draft.tab),
        # Enter in a field presses the first button of a form: that must be the one that starts.
        h.button(".hidden", type="submit", tabindex="-1", aria_hidden="true")["Start"],
        asked.kind is not Kind.NOTHING and _tabs(draft),
        (draft.problem or draft.errors) and notice(draft.problem or "Some fields need another look.", tone="bad"),
        _json_tab(workflow, asked, draft) if draft.tab == "json" else _fields_tab(asked, draft),
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


def _tabs(draft: Draft) -> h.Element:
    return h.div(".tabs", role="group", aria_label="How to enter the input")[
        (
            h.button(
                type="submit",
                name="_tab",
                value=tab,
                formnovalidate=True,
                aria_pressed="true" if draft.tab == tab else "false",
            )[label]
            for tab, label in (("form", "Form"), ("json", "JSON"))
        )
    ]


def _fields_tab(asked: Field, draft: Draft) -> h.Node:
    if asked.kind is Kind.NOTHING:
        return h.p(".muted")["This workflow takes no input."]
    return FormView(draft.errors).render(asked, draft.value)


def _json_tab(workflow: Workflow, asked: Field, draft: Draft) -> h.Node:
    value = example(asked) if draft.value is MISSING else draft.value
    text = draft.json_source if draft.json_source is not None else json_text(value)
    error = draft.errors.get("")
    return [
        h.div(class_=["field", {"wrong": bool(error)}])[
            h.label(for_="_json")["Input as JSON"],
            h.textarea(".code", id="_json", name="_json", rows="16", spellcheck="false")["\n" + text],
            error and h.p(".error")[error],
        ],
        h.details(".more")[
            h.summary["The same from a terminal"],
            h.pre[h.code[f"evs run start {workflow['name']} --input {shlex.quote(json.dumps(value))}"]],
        ],
        h.details(".more")[h.summary["Schema"], h.pre(tabindex="0")[h.code[json_text(workflow["input_schema"])]]],
    ]
