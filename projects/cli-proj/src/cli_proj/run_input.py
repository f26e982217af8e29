"""Makes a workflow's input from the command line: one JSON value, or parameters by name."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cli_proj.api import path_of
from cli_proj.failure import usage
from cli_proj.session import Session

STANDARD_INPUT = "-"


async def input_of(session: Session, workflow: str, given: str | None, parameters: Sequence[str]) -> Any:
    """Return the input of a run of `workflow`, from `--input` or `-p`; None where neither says anything it could be."""
    if given is not None and parameters:
        raise usage("--input and -p must not be used together; put everything into one of them")
    if given is not None:
        return read_value(given, option="--input")
    schema = (await session.app.get(path_of("workflows", workflow)))["input_schema"]
    return None if schema is None and not parameters else from_parameters(parameters, schema)


def read_pair(text: str, *, option: str) -> tuple[str, str]:
    """Read `name=value`."""
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise usage(f"{option} must be name=value, got {text!r}")
    return name, value


def read_value(text: str, *, option: str) -> Any:
    """Read `JSON`, `@file` or `@-` (standard input); raises `CommandFailed` that names the option."""
    source = read_text(text, option=option) if text.startswith("@") else text
    try:
        return json.loads(source)
    except ValueError as error:
        raise usage(f"{option} must be JSON or @file, got {_short(text)}: {error}") from error


def read_text(reference: str, *, option: str) -> str:
    """Return the text that `@file` or `@-` names."""
    name = reference.removeprefix("@")
    try:
        return sys.stdin.read() if name == STANDARD_INPUT else Path(name).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise usage(f"{option}: {name} must be text in UTF-8; convert it first") from error
    except OSError as error:
        raise usage(f"{option}: {name} cannot be read: {error.strerror}") from error


def from_parameters(parameters: Sequence[str], schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """Make an input object of `name=value` pairs; the schema says which values are text."""
    given: dict[str, Any] = {}
    for parameter in parameters:
        name, separator, value = parameter.partition("=")
        if not separator or not name:
            raise usage(f"-p must be name=value, got {_short(parameter)}")
        given[name] = _convert(name, value, _types_of(name, schema or {}))
    return given


def _convert(name: str, value: str, types: frozenset[str]) -> Any:
    text = read_text(value, option=f"-p {name}") if value.startswith("@") else value
    if types == {"string"}:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text  # the service says what it should have been


def _types_of(name: str, schema: Mapping[str, Any]) -> frozenset[str]:
    """The JSON types a property may have; unknown is everything."""
    field = schema.get("properties", {}).get(name, {})
    reference = field.get("$ref", "")
    if reference.startswith("#/$defs/"):
        field = schema.get("$defs", {}).get(reference.removeprefix("#/$defs/"), {})
    if "enum" in field or "const" in field:
        values = field.get("enum", [field.get("const")])
        return frozenset("string" if isinstance(value, str) else "other" for value in values)
    options = field.get("anyOf", [field])
    return frozenset(str(option.get("type", "any")) for option in options)


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
