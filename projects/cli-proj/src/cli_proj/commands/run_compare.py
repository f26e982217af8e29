"""`evs run compare`: where two runs differ."""

from typing import Any

from cli_proj.api import path_of
from cli_proj.column import Column, Item
from cli_proj.messages import message, printable
from cli_proj.options import Options
from cli_proj.printing import plain, write
from cli_proj.session import connected
from cli_proj.table import print_table
from cli_proj.timeline import operation_label


async def compare(
    id: str,  # noqa: A002
    other: str,
    /,
    *,
    limit: int = 100,
    options: Options = Options(),  # noqa: B008
) -> None:
    """Compare two runs, operation by operation: a fork with the run it came from, one of today with one of yesterday.

    Times and attempts do not count: they differ in any two runs.

    Parameters
    ----------
    id
        The run's id.
    other
        The other run's id.
    limit
        How many differences to show at most.
    """
    async with connected(options) as session:
        found = await session.app.get(path_of("runs", id, "comparison"), limit=limit, **{"with": other})
        session.output.item(found, show_comparison)


def show_comparison(found: Item) -> None:
    """Print a comparison for a person."""
    if not found["fields"] and not found["total"]:
        message("the runs do not differ, but for times and attempts")
        return
    if found["fields"]:
        write(f"the runs themselves differ in {', '.join(found['fields'])}\n")
    if found["differences"]:
        print_table(found["differences"], COLUMNS)
    if found["total"] > len(found["differences"]):
        message(f"{found['total'] - len(found['differences'])} more operations differ; see --limit")


def _what(difference: Item) -> str:
    entry = difference["run"] or difference["other"]
    return printable(operation_label(entry["kind"], entry["name"]))


def _how(difference: Item) -> str:
    if difference["other"] is None:
        return "only here"
    if difference["run"] is None:
        return "only there"
    return ", ".join(difference["fields"])


def _side(difference: Item, side: str) -> str:
    """What this side has where both have the operation, else how it ended."""
    entry: Any = difference[side]
    if entry is None:
        return ""
    if not difference["fields"]:
        return str(entry["status"])
    return "; ".join(_value(entry[name]) for name in difference["fields"])


def _value(value: Any) -> str:
    if isinstance(value, dict) and set(value) >= {"type", "message"}:
        return f"{value['type']}: {value['message']}"
    return plain(value)


COLUMNS = (
    Column("operation", lambda difference: difference["operation"]),
    Column("name", _what),
    Column("differs", _how),
    Column("here", lambda difference: _side(difference, "run"), is_wide=True),
    Column("there", lambda difference: _side(difference, "other"), is_wide=True),
)
