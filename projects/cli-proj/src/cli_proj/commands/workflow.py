"""`evs workflow`: the workflows that can be started."""

from typing import Any

from cyclopts import App

from cli_proj.api import path_of
from cli_proj.column import Column, Item
from cli_proj.options import Options
from cli_proj.printing import print_fields, write
from cli_proj.session import connected

app = App(name="workflow")

COLUMNS = (
    Column("name", lambda workflow: workflow["name"]),
    Column("type", lambda workflow: workflow["type"]),
    Column("starts on", lambda workflow: workflow["on"], is_optional=True),
    Column("description", lambda workflow: workflow["description"].partition("\n")[0], is_wide=True),
)
FIELD_COLUMNS = (
    Column("input", lambda field: field["name"]),
    Column("type", lambda field: field["type"]),
    Column("default", lambda field: field["default"], is_optional=True),
    Column("description", lambda field: field["description"], is_wide=True),
)


@app.command(name="list")
async def list_workflows(*, options: Options = Options()) -> None:  # noqa: B008 - frozen
    """List the workflows that can be started."""
    async with connected(options) as session:
        items = await session.app.pages("/v1/workflows", limit=10_000)
        session.output.items(items, COLUMNS, empty="there are no workflows")


@app.command
async def show(name: str, /, *, size: bool = False, options: Options = Options()) -> None:  # noqa: B008 - frozen
    """Show a workflow and what it takes.

    Parameters
    ----------
    name
        The workflow's name.
    size
        Instead: how many runs it has, and how much of the database they take. For operators.
    """
    async with connected(options) as session:
        if size:
            session.output.item(await session.app.get(path_of("workflows", name, "size")), _show_size)
        else:
            session.output.item(await session.app.get(path_of("workflows", name)), _show)


def _show(workflow: Item) -> None:
    acting = [("acts for you at", describe_delegation(each)) for each in workflow["acts_for_starter"]]
    fields = [(name, workflow[name]) for name in ("name", "version", "type", "queue", "on", "description")]
    if workflow["batch"] is not None:
        fields.insert(-1, ("in batches", describe_batch(workflow["batch"])))
    if workflow["deadline_seconds"] is not None:
        fields.insert(-1, ("deadline", f"{workflow['deadline_seconds']:g} s after its start"))
    print_fields([*fields, *acting])
    inputs = list_fields(workflow["input_schema"])
    if inputs:
        write("\n")
        from cli_proj.table import print_table  # noqa: PLC0415 - only people need tables

        print_table(inputs, FIELD_COLUMNS)


def describe_batch(batch: Item) -> str:
    """How the events that start a workflow gather."""
    of_each = f" of each {batch['key']}" if batch["key"] is not None else ""
    return f"{batch['events']}{of_each}, or those that have come {batch['timeout_seconds']:g} s after the first"


def describe_delegation(delegation: Item) -> str:
    """What a workflow does at one service for the person who starts it."""
    days = delegation["lasts_seconds"] / 86_400
    return f"{delegation['resource']} with {', '.join(delegation['scope'])}, until it ends, at most {days:g} days"


def _show_size(size: Item) -> None:
    runs = ", ".join(f"{count} {status}" for status, count in sorted(size["runs"].items()))
    print_fields(
        (("name", size["workflow"]), ("runs", runs or "none"), ("rows", size["rows"]), ("bytes", size["bytes"]))
    )


def list_fields(schema: Item | None) -> list[dict[str, Any]]:
    """The fields of an input schema, as rows."""
    properties: dict[str, Item] = (schema or {}).get("properties", {})
    required = (schema or {}).get("required", [])
    return [
        {
            "name": name + ("*" if name in required else ""),
            "type": describe_type(resolve(field, schema or {})),
            "default": field.get("default", ""),
            "description": field.get("description", ""),
        }
        for name, field in properties.items()
    ]


def describe_type(field: Item) -> str:
    """A JSON Schema's type in a word or two."""
    if "enum" in field:
        return " | ".join(str(value) for value in field["enum"])
    if "anyOf" in field:
        return " | ".join(describe_type(option) for option in field["anyOf"])
    return str(field.get("type", "any"))


def resolve(field: Item, schema: Item) -> Item:
    """Follow a reference into the schema's definitions."""
    reference = field.get("$ref", "")
    if isinstance(reference, str) and reference.startswith("#/$defs/"):
        found: Item = schema.get("$defs", {}).get(reference.removeprefix("#/$defs/"), field)
        return found
    return field
