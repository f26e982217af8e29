"""The HTML of a generated form: one function per kind of field, chosen from a table."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import htpy as h

from gui_proj.schema import MISSING, Field, Json, Kind, Missing, singular

INPUT_TYPES: Final = {
    "email": "email",
    "uri": "url",
    "date": "date",
    "time": "time",
    "password": "password",
}
PLACEHOLDERS: Final = {"date-time": "2026-01-31T12:00:00Z (UTC)", "duration": "PT1H30M", "uuid": "00000000-0000-…"}


@dataclass(frozen=True, slots=True)
class FormView:
    """What one rendering of the form knows: the sentences to show at fields, by JSON Pointer."""

    errors: Mapping[str, str] = field(default_factory=dict)

    def render(self, asked: Field, value: Json | Missing = MISSING) -> h.Node:
        """The control of a field with its label, or a group of fields."""
        if value is MISSING:
            value = asked.default
        return RENDERERS[asked.kind](self, asked, value)

    def error_of(self, asked: Field) -> str:
        return self.errors.get(asked.pointer, "")


def _described(view: FormView, asked: Field, **attributes: h.Attribute) -> dict[str, h.Attribute]:
    """The attributes every control has: its name, its id, and which text describes it."""
    error = view.error_of(asked)
    notes = [f"{asked.name}-hint"] if asked.description else []
    notes += [f"{asked.name}-error"] if error else []
    return {
        "id": asked.name,
        "name": asked.name,
        "aria-describedby": " ".join(notes) or None,
        "aria-invalid": "true" if error else None,
        **attributes,
    }


def _row(view: FormView, asked: Field, control: h.Node) -> h.Element:
    return h.div(class_=["field", {"wrong": bool(view.error_of(asked))}])[
        h.label(for_=asked.name)[_label(asked)],
        _hint(asked),
        control,
        _error(view, asked),
    ]


def _label(asked: Field) -> h.Node:
    return [asked.label or "Input", _optional(asked)]


def _optional(asked: Field) -> h.Node:
    must = asked.required and not asked.nullable
    return None if must or asked.default not in (None, MISSING) else h.span(".optional")["optional"]


def _hint(asked: Field) -> h.Node:
    return asked.description and h.p(".hint", id=f"{asked.name}-hint")[asked.description]


def _error(view: FormView, asked: Field) -> h.Node:
    error = view.error_of(asked)
    return error and h.p(".error", id=f"{asked.name}-error")[error]


def _shown(value: Json | Missing) -> str:
    if value is MISSING or value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _must_fill(asked: Field) -> bool:
    """The browser may insist only outside of arrays and alternatives, whose parts may be hidden."""
    needs_text = asked.kind not in {Kind.TEXT, Kind.MULTILINE} or bool(asked.schema.get("minLength"))
    return asked.required and not asked.nullable and needs_text and len(asked.path) < 2


def _text(view: FormView, asked: Field, value: Json | Missing) -> h.Node:
    schema = asked.schema
    format_name = str(schema.get("format", ""))
    examples = [_shown(each) for each in schema.get("examples") or [PLACEHOLDERS.get(format_name, "")]]
    offers = f"{asked.name}-list" if len(examples) > 1 else None
    control = h.input(
        _described(
            view,
            asked,
            type=INPUT_TYPES.get(format_name, "text"),
            value=_shown(value),
            placeholder=examples[0] or None,
            list=offers,
            required=_must_fill(asked),
            minlength=schema.get("minLength"),
            maxlength=schema.get("maxLength"),
            autocomplete="off",
        )
    )
    choices = h.datalist(id=offers)[(h.option(value=each) for each in examples)] if offers else None
    return _row(view, asked, [control, choices])


def _number(view: FormView, asked: Field, value: Json | Missing) -> h.Node:
    schema = asked.schema
    whole = asked.kind is Kind.INTEGER
    lowest, highest = schema.get("minimum"), schema.get("maximum")
    if whole and isinstance(schema.get("exclusiveMinimum"), int):
        lowest = schema["exclusiveMinimum"] + 1
    attributes = _described(
        view,
        asked,
        type="number" if isinstance(value, (int, float)) or not _shown(value) else "text",
        inputmode="numeric" if whole else "decimal",
        value=_shown(value),
        required=_must_fill(asked),
        min=None if lowest is None else str(lowest),
        max=None if highest is None else str(highest),
        step="1" if whole else "any",
        autocomplete="off",
    )
    return _row(view, asked, h.input(".number", attributes))


def _scalar(view: FormView, asked: Field, value: Json | Missing) -> h.Node:
    attributes = _described(view, asked, value=_shown(value), required=_must_fill(asked), autocomplete="off")
    return _row(view, asked, h.input(attributes, type="text"))


def _multiline(view: FormView, asked: Field, value: Json | Missing) -> h.Node:
    attributes = _described(view, asked, rows="8", required=_must_fill(asked), spellcheck="false")
    return _row(view, asked, h.textarea(attributes)[_textarea(_shown(value))])


def _file(view: FormView, asked: Field, value: Json | Missing) -> h.Node:
    media_type = str(asked.schema.get("contentMediaType", "")) or None
    control = [
        h.textarea(_described(view, asked, rows="6", spellcheck="false"))[_textarea(_shown(value))],
        h.div(".upload")[
            h.label(for_=f"{asked.name}@file")["or a file"],
            h.input(
                type="file",
                id=f"{asked.name}@file",
                name=f"{asked.name}@file",
                accept=media_type and f"{media_type},text/*,.csv,.jsonl,.ndjson,.txt",
            ),
        ],
    ]
    return _row(view, asked, control)


def _json(view: FormView, asked: Field, value: Json | Missing) -> h.Node:
    shown = value if isinstance(value, str) and view.error_of(asked) else _indented(value)
    attributes = _described(view, asked, rows="5", spellcheck="false", placeholder="JSON")
    return _row(view, asked, h.textarea(".code", attributes)[_textarea(shown)])


def _indented(value: Json | Missing) -> str:
    return "" if value is MISSING else json.dumps(value, indent=2, ensure_ascii=False)


def _textarea(text: str) -> str:
    return "\n" + text  # HTML drops the first newline after the tag, so one of ours goes first


def _boolean(view: FormView, asked: Field, value: Json | Missing) -> h.Node:
    if asked.nullable:
        options = [("", "—"), ("true", "Yes"), ("false", "No")]
        chosen = json.dumps(value) if isinstance(value, bool) else ""
        return _row(view, asked, _select(view, asked, options, chosen))
    return h.div(class_=["field", "check", {"wrong": bool(view.error_of(asked))}])[
        h.input(_described(view, asked, type="checkbox", value="true", checked=value is True)),
        h.label(for_=asked.name)[asked.label],
        _hint(asked),
        _error(view, asked),
    ]


def _choice(view: FormView, asked: Field, value: Json | Missing) -> h.Node:
    options = [(json.dumps(choice), _shown(choice) or "none") for choice in asked.choices]
    if not asked.required or asked.nullable or asked.default is MISSING:
        options.insert(0, ("", "Choose…" if asked.required and not asked.nullable else "—"))
    chosen = "" if value is MISSING else json.dumps(value)
    return _row(view, asked, _select(view, asked, options, chosen))


def _select(view: FormView, asked: Field, options: list[tuple[str, str]], chosen: str) -> h.Element:
    return h.select(_described(view, asked, required=_must_fill(asked)))[
        (h.option(value=key, selected=key == chosen)[text] for key, text in options)
    ]


def _choices(view: FormView, asked: Field, value: Json | Missing) -> h.Node:
    chosen = value if isinstance(value, list) else []
    return h.fieldset(".field.choices")[
        h.legend[_label(asked)],
        _hint(asked),
        (
            h.label(".choice")[
                h.input(type="checkbox", name=asked.name, value=json.dumps(choice), checked=choice in chosen),
                _shown(choice),
            ]
            for choice in asked.choices
        ),
        _error(view, asked),
    ]


def _nothing(_view: FormView, _asked: Field, _value: Json | Missing) -> h.Node:
    """Null and constants leave nothing to choose, so nothing is asked."""
    return None


def _object(view: FormView, asked: Field, value: Json | Missing) -> h.Node:
    values = value if isinstance(value, dict) else {}
    inner = [view.render(each, values.get(each.key, MISSING)) for each in asked.fields]
    error = _error(view, asked)
    if not asked.path:
        return h.div(".fields")[error, inner]
    return h.fieldset(".group")[h.legend[_label(asked)], _hint(asked), error, inner]


def _array(view: FormView, asked: Field, value: Json | Missing) -> h.Node:
    least = int(asked.schema.get("minItems", 0))
    items = list(value) if isinstance(value, list) else []
    items += [MISSING] * (least - len(items))
    return h.fieldset(".group.items", id=asked.name)[
        h.legend[_label(asked)],
        _hint(asked),
        (_item(view, asked, index, MISSING if item is None else item) for index, item in enumerate(items)),
        h.button(".small", type="submit", name="_add", value=asked.pointer, formnovalidate=True)[
            "+ Add ", singular(asked.label).lower()
        ],
        _error(view, asked),
    ]


def _item(view: FormView, asked: Field, index: int, value: Json | Missing) -> h.Node:
    inner = asked.item(index)
    return h.div(".item")[
        h.input(type="hidden", name=asked.name, value=str(index)),
        view.render(inner, value),
        h.button(
            ".small.quiet",
            type="submit",
            name="_remove",
            value=inner.pointer,
            formnovalidate=True,
            aria_label=f"Remove {inner.label.lower()}",
        )["Remove"],
    ]


def _alternatives(view: FormView, asked: Field, value: Json | Missing) -> h.Node:
    chosen = chosen_branch(asked, value)
    return h.fieldset(".group.alternatives")[
        h.legend[_label(asked)],
        _hint(asked),
        (
            h.div(".alternative")[
                h.label(".choice")[
                    h.input(type="radio", name=f"{asked.name}?", value=str(number), checked=number == chosen),
                    branch.label or asked.label,
                ],
                h.div(".branch")[view.render(branch, value if number == chosen else MISSING)],
            ]
            for number, branch in enumerate(asked.fields)
        ),
        _error(view, asked),
    ]


def chosen_branch(asked: Field, value: Json | Missing) -> int:
    """The first alternative the value could be of."""
    if value is MISSING:
        return 0
    fitting = (number for number, branch in enumerate(asked.fields) if _fits(branch, value))
    return next(fitting, 0)


def _fits(branch: Field, value: Json) -> bool:
    if branch.kind is Kind.OBJECT:
        constants = [inner for inner in branch.fields if inner.kind is Kind.CONSTANT]
        return isinstance(value, dict) and all(value.get(each.key) == each.schema["const"] for each in constants)
    if branch.kind in {Kind.CONSTANT, Kind.CHOICE}:
        return value in [branch.schema.get("const", MISSING), *branch.choices]
    if isinstance(value, bool):
        return branch.kind is Kind.BOOLEAN
    return isinstance(value, FITTING_TYPES.get(branch.kind, (str, int, float)))


FITTING_TYPES: Final[dict[Kind, tuple[type, ...]]] = {
    Kind.NOTHING: (type(None),),
    Kind.ARRAY: (list,),
    Kind.CHOICES: (list,),
    Kind.NUMBER: (int, float),
    Kind.INTEGER: (int,),
    Kind.BOOLEAN: (),
    Kind.JSON: (dict, list, str, int, float),
}

type Renderer = Callable[[FormView, Field, Json | Missing], h.Node]

RENDERERS: Final[dict[Kind, Renderer]] = {
    Kind.TEXT: _text,
    Kind.MULTILINE: _multiline,
    Kind.FILE: _file,
    Kind.NUMBER: _number,
    Kind.INTEGER: _number,
    Kind.SCALAR: _scalar,
    Kind.BOOLEAN: _boolean,
    Kind.CHOICE: _choice,
    Kind.CHOICES: _choices,
    Kind.CONSTANT: _nothing,
    Kind.NOTHING: _nothing,
    Kind.OBJECT: _object,
    Kind.ARRAY: _array,
    Kind.ALTERNATIVES: _alternatives,
    Kind.JSON: _json,
}
