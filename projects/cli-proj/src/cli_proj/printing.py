"""Writes on standard output; for people: names with their values, and statuses with their sign."""

import json
import sys
from collections.abc import Iterable
from typing import Any

from cli_proj.messages import printable, shows_colour

UNLIMITED_COLUMNS = 100_000  # a pipe gets whole values: nothing is cut to the width of a screen

STATUS_STYLES = {
    "queued": ("◌", "dim"),
    "running": ("●", "cyan"),
    "waiting": ("◔", "yellow"),
    "pending": ("◔", "yellow"),
    "cancelling": ("◒", "yellow"),
    "completed": ("✓", "green"),
    "approved": ("✓", "green"),
    "ready": ("✓", "green"),
    "ok": ("✓", "green"),
    "failed": ("✗", "red"),
    "rejected": ("✗", "red"),
    "nondeterministic": ("✗", "red"),
    "expired": ("✗", "red"),
    "warning": ("!", "yellow"),
    "cancelled": ("-", "dim"),
    "continued": ("↻", "dim"),
    "starting": ("◌", "yellow"),
    "restarting": ("◌", "yellow"),
    "stopped": ("-", "dim"),
    "active": ("●", "green"),
    "paused": ("◔", "yellow"),
    "over": ("-", "dim"),
}


def write(text: str) -> None:
    """Print data."""
    sys.stdout.write(text)


def console() -> Any:
    """Return the rich console of standard output."""
    from rich.console import Console  # noqa: PLC0415 - only people need it, programs save 50 ms

    width = None if sys.stdout.isatty() else UNLIMITED_COLUMNS
    return Console(width=width, highlight=False, markup=False, emoji=False, no_color=not shows_colour(sys.stdout))


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Print one thing as names and values; what is None or empty is left out."""
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields:
        if value not in (None, "", [], {}):
            shown = status_text(str(value)) if name == "status" else Text(printable(plain(value)))
            table.add_row(name, shown)
    print_renderable(table)


def print_renderable(renderable: Any) -> None:
    """Print what rich draws; a pipe gets no blanks at the end of a line."""
    screen = console()
    if sys.stdout.isatty():
        screen.print(renderable)
        return
    with screen.capture() as captured:
        screen.print(renderable)
    write("\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n")


def status_text(status: str) -> Any:
    """Return a status with its sign and colour; the word is always there."""
    from rich.text import Text  # noqa: PLC0415

    sign, style = STATUS_STYLES.get(status, ("·", ""))
    return Text(f"{sign} {printable(status)}", style=style)


def plain(value: object) -> str:
    """Return a value as a person writes it: text as it is, a list of words with commas, anything else as JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False, default=str)
