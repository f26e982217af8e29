"""Prints tables without lines; on a narrow terminal whole columns go before identifiers are cut."""

import sys
from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from cli_proj.column import Column, Item
from cli_proj.messages import printable
from cli_proj.printing import console, plain, print_renderable, status_text

GAP = 2
LEAST_WIDE = 12  # a wide column with less room than this says nothing


def print_table(items: Sequence[Item], columns: Sequence[Column]) -> None:
    """Print `items`; a pipe gets everything whole."""
    cells = {column: [_cell(column, item) for item in items] for column in columns}
    widths = {column: max(cell_len(column.heading), *(text.cell_len for text in cells[column])) for column in columns}
    shown = fit(widths, console().width if sys.stdout.isatty() else None)
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim")
    for column, width in shown.items():
        justify = "right" if column.align_right else "left"
        table.add_column(column.heading.upper(), no_wrap=True, overflow="ellipsis", width=width, justify=justify)  # type: ignore[arg-type]
    for row in zip(*(cells[column] for column in shown), strict=True):
        table.add_row(*row)
    print_renderable(table)


def fit(widths: dict[Column, int], room: int | None) -> dict[Column, int]:
    """Return the columns to show, and how wide: wide ones are cut, then left out, then optional ones from the right."""
    shown = dict(widths)
    if room is None:
        return shown
    for column in [*_where(widths, wide=True), *reversed(_where(widths, wide=False))]:
        excess = sum(shown.values()) + GAP * (len(shown) - 1) - room
        if excess <= 0:
            break
        if column.is_wide and shown[column] - excess >= LEAST_WIDE:
            shown[column] -= excess
        else:
            del shown[column]
    return shown


def _where(widths: dict[Column, int], *, wide: bool) -> list[Column]:
    return [column for column in widths if (column.is_wide if wide else column.is_optional and not column.is_wide)]


def _cell(column: Column, item: Item) -> Text:
    value = column.value(item)
    if column.is_status:
        status: Any = status_text(str(value))
        return Text.assemble(status)
    # In a table a newline is a control character like any other.
    return Text(printable(plain(value)).replace("\n", "⏎").replace("\t", " "))
