"""From the text of a file to its records: CSV or JSON lines, with line numbers, quotes, and faults told apart."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic_core import from_json, to_json

from app_svc.column_types import Value

type Format = Literal["csv", "jsonl"]

REPLACEMENT = "\ufffd"  # what a decoder leaves where the bytes were not the encoding it expected
RECORD_CHARACTERS = 128 * 1024


class TableMalformed(Exception):
    """The text as a whole is no table; `line` is where that shows."""

    def __init__(self, problem: str, line: int = 1) -> None:
        super().__init__(problem, line)
        self.problem = problem
        self.line = line

    def __str__(self) -> str:
        return f"line {self.line}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Record:
    """One record: its cells, by place or by name, or the fault that keeps it from being read."""

    line: int  # it begins here, counted from 1
    next_line: int  # and the text goes on here
    end: int  # which is this offset
    cells: Sequence[Value] | dict[str, Value] = ()
    fault: str | None = None


def read_records(text: str, format: Format, *, delimiter: str = ",", first_line: int = 1) -> Iterator[Record]:  # noqa: A002
    """Read the records of `text`, whose first line is line `first_line` of the file; raises `TableMalformed`."""
    return _read_csv(text, delimiter, first_line) if format == "csv" else _read_json(text, first_line)


class _Lines:
    r"""The lines of a text, counting what was handed out; only \n, \r and \r\n end a line."""

    def __init__(self, text: str) -> None:
        self._lines = io.StringIO(text, newline="")
        self.offset = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.offset += len(line)
        return line


def _read_csv(text: str, delimiter: str, first_line: int) -> Iterator[Record]:
    lines = _Lines(text)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        line, begin = first_line + reader.line_num, lines.offset
        cells, fault = _next_cells(reader, line)
        if cells is None and fault is None:
            return
        if cells == []:
            continue  # a blank line
        fault = fault or _find_fault(text, begin, lines.offset)
        yield Record(line, first_line + reader.line_num, lines.offset, () if fault else cells or (), fault)


def _next_cells(reader: Any, line: int) -> tuple[list[str] | None, str | None]:
    """The next cells or their fault; neither at the end."""
    try:
        return next(reader), None
    except StopIteration:
        return None, None
    except csv.Error as error:
        if "unexpected end" in str(error):
            raise TableMalformed("a quoted field that begins here must end with a quote; add it", line) from error
        if "field limit" in str(error):
            limit = csv.field_size_limit()
            problem = f"a field must be at most {limit} characters long, got more; shorten it, or close its quotes"
            raise TableMalformed(problem, line) from error
        # The reader goes on with the next line: a bad line costs one record.
        return None, f"a quote inside a quoted field must be doubled ({error})"


def _read_json(text: str, first_line: int) -> Iterator[Record]:
    lines = _Lines(text)
    for number, content in enumerate(lines, start=first_line):
        if not content.strip():
            continue
        cells, fault = _read_object(content)
        fault = _find_fault(text, lines.offset - len(content), lines.offset) or fault
        yield Record(number, number + 1, lines.offset, {} if fault else cells, fault)


def _read_object(content: str) -> tuple[dict[str, Value], str | None]:
    try:
        value = from_json(content, allow_inf_nan=False)
    except ValueError as error:
        return {}, f"must be JSON: {error}"
    if not isinstance(value, dict):
        return {}, f"must be a JSON object, got {type(value).__name__}"
    return {str(name): _flatten(cell) for name, cell in value.items()}, None


def _flatten(cell: Any) -> Value:
    """Keep a nested value as its JSON text."""
    return to_json(cell).decode() if isinstance(cell, dict | list) else cell


def _find_fault(text: str, begin: int, end: int) -> str | None:
    if text.find(REPLACEMENT, begin, end) >= 0 or text.find("\0", begin, end) >= 0:
        return "must be UTF-8 text, got other bytes (bad encoding)"
    if end - begin > RECORD_CHARACTERS:
        return f"must be at most {RECORD_CHARACTERS} characters long, got {end - begin}"
    return None
