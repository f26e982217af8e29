"""Turns what a person typed into the generated form back into JSON of the schema's types."""

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from gui_proj.schema import MISSING, Field, Json, Kind, Missing


class FormValues(Protocol):
    """A submitted form: Starlette's FormData, or any mapping to lists."""

    def getlist(self, key: str) -> Sequence[object]: ...


@dataclass(slots=True)
class FormInput:
    """A submitted form, read: the value as far as it could be understood, and what could not, by JSON Pointer."""

    value: Json | Missing = MISSING
    errors: dict[str, str] = field(default_factory=dict)


def read_form(root: Field, values: FormValues, files: Mapping[str, bytes] | None = None) -> FormInput:
    """What the form says; text that is no number stays text and is named in `errors`."""
    reader = _FormReader(values, files or {})
    value = reader.read(root)
    return FormInput(value, reader.errors)


class _FormReader:
    def __init__(self, values: FormValues, files: Mapping[str, bytes]) -> None:
        self.values = values
        self.files = files
        self.errors: dict[str, str] = {}

    def read(self, asked: Field) -> Json | Missing:
        if asked.kind in CONTAINERS:
            return CONTAINERS[asked.kind](self, asked)
        if asked.kind is Kind.BOOLEAN and not asked.nullable:
            return self._text(asked.name) == "true"  # a browser sends nothing for an empty box
        if asked.kind is Kind.FILE and asked.name in self.files:
            return self._file(asked, self.files[asked.name])
        text = self._text(asked.name)
        if text is None:
            return MISSING
        return SCALARS.get(asked.kind, _FormReader._plain_text)(self, asked, text) if text else self._empty(asked)

    def _text(self, name: str) -> str | None:
        found = [value for value in self.values.getlist(name) if isinstance(value, str)]
        return found[-1].replace("\r\n", "\n") if found else None

    def _object(self, asked: Field) -> Json:
        read = {inner.key: self.read(inner) for inner in asked.fields}
        return {key: value for key, value in read.items() if value is not MISSING}

    def _array(self, asked: Field) -> Json:
        items = []
        for index in self.values.getlist(asked.name):
            if isinstance(index, str) and index.isdecimal() and len(index) < 6:
                value = self.read(asked.item(int(index)))
                items.append(None if value is MISSING else value)
        return items if items or asked.required else MISSING

    def _alternatives(self, asked: Field) -> Json | Missing:
        chosen = self._text(asked.name + "?") or "0"
        number = int(chosen) if chosen.isdecimal() and len(chosen) < 6 else 0
        branch = asked.fields[min(number, len(asked.fields) - 1)]
        if branch.kind is Kind.NOTHING:
            return None if asked.required or asked.default not in (None, MISSING) else MISSING
        return self.read(branch)

    def _file(self, asked: Field, content: bytes) -> Json:
        if asked.schema.get("contentEncoding") == "base64":
            return base64.b64encode(content).decode()
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            self.errors[asked.pointer] = f"The file must be UTF-8 text; byte {error.start} is not."
            return ""

    def _choices(self, asked: Field) -> Json:
        chosen = {str(value) for value in self.values.getlist(asked.name)}
        return [choice for choice in asked.choices if json.dumps(choice) in chosen]

    def _constant(self, asked: Field) -> Json:
        return asked.schema["const"]

    def _nothing(self, asked: Field) -> Json | Missing:
        return None if asked.required and asked.path else MISSING

    def _number_or_text(self, _asked: Field, text: str) -> Json:
        return text if (number := as_number(text)) is None else number

    def _truth(self, _asked: Field, text: str) -> Json:
        return text == "true"

    def _choice(self, asked: Field, text: str) -> Json:
        return next((choice for choice in asked.choices if json.dumps(choice) == text), text)

    def _plain_text(self, asked: Field, text: str) -> Json:
        return with_zone(text) if asked.schema.get("format") == "date-time" else text

    def _empty(self, asked: Field) -> Json | Missing:
        if asked.nullable and (asked.required or asked.default not in (None, MISSING)):
            return None
        textual = asked.kind in {Kind.TEXT, Kind.MULTILINE, Kind.FILE}
        if textual and not asked.nullable and (asked.required or asked.default not in ("", MISSING)):
            return ""
        return MISSING

    def _number(self, asked: Field, text: str) -> Json:
        whole = asked.kind is Kind.INTEGER
        number = as_number(text)
        if number is None or (whole and number != int(number)):
            self.errors[asked.pointer] = f"Must be a {'whole ' if whole else ''}number, got “{text[:40]}”."
            return text
        return int(number) if whole else number

    def _json(self, asked: Field, text: str) -> Json:
        try:
            return read_json(text)
        except ValueError as error:
            self.errors[asked.pointer] = f"Must be JSON: {error}."
            return text


type ReadContainer = Callable[[_FormReader, Field], Json | Missing]
type ReadScalar = Callable[[_FormReader, Field, str], Json | Missing]

CONTAINERS: Final[dict[Kind, ReadContainer]] = {
    Kind.OBJECT: _FormReader._object,
    Kind.ARRAY: _FormReader._array,
    Kind.ALTERNATIVES: _FormReader._alternatives,
    Kind.CHOICES: _FormReader._choices,
    Kind.CONSTANT: _FormReader._constant,
    Kind.NOTHING: _FormReader._nothing,
}
SCALARS: Final[dict[Kind, ReadScalar]] = {
    Kind.INTEGER: _FormReader._number,
    Kind.NUMBER: _FormReader._number,
    Kind.SCALAR: _FormReader._number_or_text,
    Kind.BOOLEAN: _FormReader._truth,
    Kind.CHOICE: _FormReader._choice,
    Kind.JSON: _FormReader._json,
}


def read_json(text: str) -> Json:
    """What a person wrote as JSON; raises ValueError also for what could not be sent on (NaN, half a character)."""
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return value


def as_number(text: str) -> int | float | None:
    """The number a text reads as, or None; JSON knows neither infinity nor NaN."""
    try:
        number = int(text) if text.strip().lstrip("+-").isdecimal() else float(text)
        return number if math.isfinite(number) else None
    except (ValueError, OverflowError):
        return None


def with_zone(text: str) -> str:
    """A `datetime-local` control has no zone; the form says it asks for UTC (RFC 3339)."""
    has_zone = text.endswith(("Z", "z")) or "+" in text[10:] or "-" in text[10:]
    return text if has_zone else f"{text}:00Z" if text.count(":") == 1 else f"{text}Z"
