"""Prints data on standard output: a table for people, JSON, JSON lines or YAML for programs."""

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from cli_proj.column import Column, Item
from cli_proj.messages import message
from cli_proj.options import Format
from cli_proj.printing import write


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
        if self.is_table:
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
        if self.is_table:
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


def _yaml(data: Any) -> str:
    import yaml  # type: ignore[import-untyped]  # noqa: PLC0415 - rarely asked for

    text: str = yaml.safe_dump(data, allow_unicode=True, sort_keys=False)
    return text
