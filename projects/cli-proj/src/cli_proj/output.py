"""Prints data on standard output: a table for people, JSON, JSON lines or YAML for programs."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cli_proj.column import Column
from cli_proj.messages import message, printable, shows_colour
from cli_proj.options import Format

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
    "starting": ("◌", "yellow"),
    "restarting": ("◌", "yellow"),
    "stopped": ("-", "dim"),
}

type Item = Mapping[str, Any]


class Output:
    """Prints what a command found, in the format the person asked for."""

    def __init__(self, format: Format) -> None:  # noqa: A002 - the word of the option
        self.format = format

    @property
    def is_table(self) -> bool:
        """Whether a person reads it."""
        return self.format == "table"

    def items(self, items: Sequence[Item], columns: Sequence[Column], *, empty: str) -> None:
        """Print a list; `empty` is said (not printed) when there is nothing to show a person."""
        if self.format == "table":
            if items:
                from cli_proj.table import print_table  # noqa: PLC0415 - only people need tables

                print_table(items, columns)
            else:
                message(empty)
        elif self.format == "jsonl":
            for item in items:
                self.record(item)
        else:
            self._document(list(items))

    def item(self, item: Item, show: Callable[[Item], None]) -> None:
        """Print one thing; `show` prints it for a person."""
        if self.format == "table":
            show(item)
        elif self.format == "jsonl":
            self.record(item)
        else:
            self._document(item)

    def record(self, item: Item) -> None:
        """Print one thing of a stream at once: a line of JSON, or a YAML document."""
        if self.format == "yaml":
            write("---\n" + _yaml(item))
        else:
            write(json.dumps(item, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def _document(self, data: Any) -> None:
        write(_yaml(data) if self.format == "yaml" else json.dumps(data, ensure_ascii=False, indent=2) + "\n")


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
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def _yaml(data: Any) -> str:
    import yaml  # type: ignore[import-untyped]  # noqa: PLC0415 - rarely asked for

    text: str = yaml.safe_dump(data, allow_unicode=True, sort_keys=False)
    return text
