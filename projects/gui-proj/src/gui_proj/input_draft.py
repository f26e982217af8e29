"""The input of a workflow as a person fills it in: fields made from its schema, or JSON by hand; both say the same."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import htpy as h
from starlette.datastructures import UploadFile

from gui_proj.form_fields import FormView
from gui_proj.form_input import FormInput, read_form, read_json
from gui_proj.json_view import json_text
from gui_proj.schema import MISSING, Field, Json, Kind, Missing, example
from gui_proj.visit import Visit


@dataclass(frozen=True, slots=True)
class InputDraft:
    """The input as it stands: what is filled in, what is wrong with it by JSON Pointer, and which tab shows it."""

    value: Json | Missing = MISSING
    errors: dict[str, str] = field(default_factory=dict)
    tab: str = "form"
    json_source: str | None = None

    @property
    def sent(self) -> Json:
        """What goes to the AppService."""
        return None if self.value is MISSING else self.value


async def read_input(visit: Visit, asked: Field) -> tuple[InputDraft, bool]:
    """The submitted input, and whether the form is only to be drawn again: with another item, or on the other tab."""
    tab = "json" if visit.field("_from") == "json" else "form"
    read = _read_json(visit.field("_json")) if tab == "json" else await _read_fields(visit, asked)
    value = _rearranged(visit, read.value)
    wanted_tab = visit.field("_tab") or tab
    if tab == "json" and read.errors:
        wanted_tab = "json"  # what cannot be read as JSON cannot be shown as fields
    redraw = any(name in visit.form for name in ("_tab", "_add", "_remove"))
    draft = InputDraft(
        value,
        read.errors if tab == "json" or not redraw else {},
        wanted_tab,
        visit.field("_json") if tab == wanted_tab == "json" else None,
    )
    return draft, redraw


def input_view(asked: Field, draft: InputDraft, *beside_json: h.Node) -> h.Node:
    """The tabs and what the chosen one shows; `beside_json` stands under the JSON."""
    return [
        h.input(type="hidden", name="_from", value=draft.tab),
        asked.kind is not Kind.NOTHING and _tabs(draft),
        [_json_tab(asked, draft), beside_json] if draft.tab == "json" else _fields_tab(asked, draft),
    ]


def shown_value(asked: Field, draft: InputDraft) -> Json:
    """The value as JSON; where nothing is filled in yet, an example."""
    return example(asked) if draft.value is MISSING else draft.value


def refused_input(asked: Field, draft: InputDraft, errors: Mapping[str, str]) -> tuple[InputDraft, list[str]]:
    """The AppService's errors at their fields, and in words those that no field shows."""
    if draft.tab == "json":
        return replace(draft, errors={}), [f"{pointer or 'input'}: {words}" for pointer, words in errors.items()]
    known = {each.pointer for each in _all_fields(asked, draft.value)}
    stray = [f"{pointer}: {words}" for pointer, words in errors.items() if pointer not in known]
    return replace(draft, errors=dict(errors)), stray


def read_tags(text: str) -> dict[str, str]:
    """`team=blue, urgent` as names with values."""
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    return {name.strip(): value.strip() for name, _, value in pairs}


def _tabs(draft: InputDraft) -> h.Element:
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


def _fields_tab(asked: Field, draft: InputDraft) -> h.Node:
    if asked.kind is Kind.NOTHING:
        return h.p(".muted")["This workflow takes no input."]
    return FormView(draft.errors).render(asked, draft.value)


def _json_tab(asked: Field, draft: InputDraft) -> h.Node:
    text = draft.json_source if draft.json_source is not None else json_text(shown_value(asked, draft))
    error = draft.errors.get("")
    return h.div(class_=["field", {"wrong": bool(error)}])[
        h.label(for_="_json")["Input as JSON"],
        h.textarea(".code", id="_json", name="_json", rows="16", spellcheck="false")["\n" + text],
        error and h.p(".error")[error],
    ]


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
        if isinstance(value, list) and segment.isdecimal() and len(segment) < 6 and int(segment) < len(value):
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


def _all_fields(asked: Field, value: Json | Missing) -> list[Field]:
    found = [asked] if asked.path else []
    inner = list(asked.fields)
    if asked.kind is Kind.ARRAY and isinstance(value, list):
        inner = [asked.item(index) for index in range(len(value))]
    for each in inner:
        below = _at(value, [each.key]) if asked.kind in {Kind.OBJECT, Kind.ARRAY} else value
        found += _all_fields(each, below)
    return found
