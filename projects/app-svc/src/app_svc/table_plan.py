"""How a table's text is to be read: format, delimiter, header, column types and where to cut it into parts."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic_core import from_json

from app_svc.column_types import ColumnType, Value, infer, is_null, read
from app_svc.table_text import Format, Record, TableMalformed, read_records

BYTE_ORDER_MARK = "\ufeff"
DELIMITERS = (",", ";", "\t", "|")
COLUMN_LIMIT = 500
SAMPLE_ROWS = 5_000  # rows that decide on the types; more would change nothing but the time it takes
PEEK_CHARACTERS = 64 * 1024  # how much of the text decides on the delimiter
PART_LIMIT = 10_000  # a run's history holds some rows for each
PART_CHARACTERS = 128 * 1024  # keeps the event of a part's rows below what a broker carries in one message


@dataclass(frozen=True, slots=True)
class Column:
    """A column's name and the type nearly all of its values have."""

    name: str
    type: ColumnType


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive records: where they stand in the text, and the number of the line that begins there."""

    number: int
    start: int
    end: int
    first_line: int
    rows: int


@dataclass(frozen=True, slots=True)
class TablePlan:
    """What was found out about a text once, and is then used for every part of it."""

    format: Format
    delimiter: str
    has_header: bool
    columns: list[Column]
    rows: int
    parts: list[Part]


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a row cannot be accepted."""

    line: int
    reason: str


def make_plan(
    text: str, *, file_format: Literal["auto", "csv", "jsonl"], delimiter: str | None, part_rows: int
) -> TablePlan:
    """Find out what the table in `text` is made of; raises `TableMalformed`."""
    start = len(text) - len(text.removeprefix(BYTE_ORDER_MARK))
    body = text[start:]
    if not body.strip():
        raise TableMalformed("the file must not be empty; choose one with a header line and rows below it")
    if body.count("\0") > len(body) // 10:
        raise TableMalformed("the file must be UTF-8 text, got binary data or UTF-16; save it as UTF-8 and try again")
    if (_detect_format(body) if file_format == "auto" else file_format) == "jsonl":
        return _plan_json(body, start, part_rows)
    return _plan_csv(body, start, delimiter or _detect_delimiter(body), part_rows)


def read_part(text: str, first_line: int, plan: TablePlan) -> tuple[list[list[Value]], list[Fault]]:
    """Read one part of the text by the plan: the rows that fit it, and the faults of those that do not."""
    rows: list[list[Value]] = []
    faults: list[Fault] = []
    for record in read_records(text, plan.format, delimiter=plan.delimiter, first_line=first_line):
        row = _read_row(record, plan)
        if isinstance(row, Fault):
            faults.append(row)
        else:
            rows.append(row)
    return rows, faults


def _read_row(record: Record, plan: TablePlan) -> list[Value] | Fault:
    if record.fault is not None:
        return Fault(record.line, record.fault)
    cells = record.cells
    if isinstance(cells, dict):
        unknown = cells.keys() - {column.name for column in plan.columns}
        if unknown:
            return Fault(record.line, f"must have the columns of the other rows, got {min(unknown)!r} too")
        cells = [cells.get(column.name) for column in plan.columns]
    if len(cells) != len(plan.columns):
        return Fault(record.line, f"must have {len(plan.columns)} columns, got {len(cells)}")
    row: list[Value] = []
    for column, cell in zip(plan.columns, cells, strict=True):
        try:
            row.append(read(cell, column.type, typed=plan.format == "jsonl"))
        except ValueError as misfit:
            return Fault(record.line, f"column {column.name!r} {misfit}")
    return row


def _detect_format(body: str) -> Format:
    first = body.lstrip()
    if first.startswith("["):
        try:
            from_json(first)
        except ValueError:
            return "csv"
        raise TableMalformed("the file must be JSON lines, got one JSON array; write one object per line")
    return "jsonl" if first.startswith("{") else "csv"


def _detect_delimiter(body: str) -> str:
    """The delimiter that cuts most of the first lines into the same number of cells, more than one."""

    def quality(delimiter: str) -> tuple[int, int]:
        widths: Counter[int] = Counter()
        try:
            for record in read_records(body[:PEEK_CHARACTERS], "csv", delimiter=delimiter):
                widths[len(record.cells)] += 1
        except TableMalformed:
            pass  # what is peeked at may end inside quotes
        width, count = max(widths.items(), key=lambda found: found[1], default=(1, 0))
        return (count, width) if width > 1 else (0, 0)

    return max(DELIMITERS, key=quality)


def _plan_csv(body: str, start: int, delimiter: str, part_rows: int) -> TablePlan:
    records = list(read_records(body, "csv", delimiter=delimiter))
    readable = [[str(cell) for cell in record.cells] for record in records if record.fault is None]
    if not readable:
        raise TableMalformed(f"no line can be read: {records[0].fault}; check the file", records[0].line)
    sample = _sample(readable[1:] or readable)
    width = _common_width(sample, delimiter)
    fitting = [row for row in sample if len(row) == width]
    types = [infer(row[index] for row in fitting) for index in range(width)]
    first = readable[0]
    has_header = records[0].fault is None and _is_header(first, fitting, types)
    if has_header:
        _check_header(first, width, rows=len(readable) - 1)
    names = [cell.strip() for cell in first] if has_header else [""] * width
    columns = [Column(name or f"column_{number + 1}", types[number]) for number, name in enumerate(names)]
    parts = _cut(records, 1 if has_header else 0, start, part_rows)
    return TablePlan("csv", delimiter, has_header, columns, len(records) - (1 if has_header else 0), parts)


def _plan_json(body: str, start: int, part_rows: int) -> TablePlan:
    records = list(read_records(body, "jsonl"))
    readable = [record.cells for record in records if record.fault is None and isinstance(record.cells, dict)]
    if not readable:
        fault = records[0]
        raise TableMalformed(f"no line can be read: it {fault.fault}; write one JSON object per line", fault.line)
    sample = _sample(readable)
    seen = Counter(name for cells in sample for name in cells)
    # A key that one row in a hundred has is a slip of that row, not a column of the table.
    names = [name for name, count in seen.items() if count > len(sample) // 100]
    _check_width(len(names))
    columns = [Column(name, infer((cells.get(name) for cells in sample), typed=True)) for name in names]
    return TablePlan(
        "jsonl", ",", has_header=False, columns=columns, rows=len(records), parts=_cut(records, 0, start, part_rows)
    )


def _sample[T](rows: Sequence[T]) -> Sequence[T]:
    """Rows from all over the table, at most `SAMPLE_ROWS`."""
    return rows[:: max(1, -(-len(rows) // SAMPLE_ROWS))]


def _common_width(rows: Sequence[Sequence[str]], delimiter: str) -> int:
    width, count = Counter(len(row) for row in rows).most_common(1)[0]
    _check_width(width)
    if count * 2 < len(rows):
        raise TableMalformed(
            f"most rows must have the same number of columns, got {width} in only {count} of {len(rows)} "
            f"with the delimiter {delimiter!r}; name the right delimiter"
        )
    return width


def _check_width(width: int) -> None:
    if width > COLUMN_LIMIT:
        raise TableMalformed(f"a table must have at most {COLUMN_LIMIT} columns, got {width}; split it")


def _is_header(first: Sequence[str], rows: Sequence[Sequence[str]], types: Sequence[ColumnType]) -> bool:
    """Whether the first line names the columns rather than being a row."""
    named = [cell for cell in first if not is_null(cell)]
    if not named or any(infer([cell]) != "text" for cell in named):
        return False
    if any(column_type != "text" for column_type in types):
        return True  # words above numbers or dates
    return len(named) == len(set(first)) and list(first) not in [list(row) for row in rows if row is not first]


def _check_header(header: Sequence[str], width: int, *, rows: int) -> None:
    if rows == 0:
        raise TableMalformed("the file must have rows, got only a header line; add rows below it")
    if len(header) != width:
        raise TableMalformed(f"the header must have the {width} columns of the rows, got {len(header)}; correct it")
    name, count = Counter(cell.strip() for cell in header if cell.strip()).most_common(1)[0]
    if count > 1:
        raise TableMalformed(f"column names must differ, got {name!r} {count} times; rename them")


def _cut(records: Sequence[Record], skipped: int, start: int, part_rows: int) -> list[Part]:
    """Cut between records: after `part_rows` of them or `PART_CHARACTERS`, whichever comes first."""
    parts: list[Part] = []
    begin, first_line = (records[skipped - 1].end, records[skipped - 1].next_line) if skipped else (0, 1)
    rows = 0
    for index in range(skipped, len(records)):
        record = records[index]
        rows += 1
        following = records[index + 1].end if index + 1 < len(records) else None
        if following is None or rows == part_rows or following - begin > PART_CHARACTERS:
            parts.append(Part(len(parts) + 1, start + begin, start + record.end, first_line, rows))
            begin, first_line, rows = record.end, record.next_line, 0
    if len(parts) > PART_LIMIT:
        raise TableMalformed(
            f"the table must come in at most {PART_LIMIT} batches, got {len(parts)} of {part_rows} rows; "
            "raise chunk_rows, or split the table"
        )
    return parts
