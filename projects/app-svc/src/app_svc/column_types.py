"""What a column holds: the type nearly all of its values have, and how one value is read as that type."""

import math
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Literal

type ColumnType = Literal["integer", "number", "boolean", "date", "datetime", "text"]
type Value = str | int | float | bool | None
type Native = float | bool  # what JSON has besides texts; float takes integers too

# A code such as 007 or a 20-digit id is no number: reading it as one would change it.
INTEGER = re.compile(r"[+-]?(0|[1-9]\d{0,17})")
NUMBER = re.compile(r"[+-]?((0|[1-9]\d{0,14})(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?")
DATE = re.compile(r"\d{4}-\d\d-\d\d")
DATETIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?([Zz]|[+-]\d\d:?\d\d)?")
BOOLEANS = {"true": True, "yes": True, "false": False, "no": False}
# Words that stand for "nothing" where a number or a date belongs; in a text column they are text (NA is Namibia).
NULL_WORDS = frozenset(("na", "n/a", "null", "none", "nan", "-"))
GUESSES: tuple[ColumnType, ...] = ("integer", "number", "boolean", "date", "datetime")


class ValueMisfit(ValueError):
    """A value does not have the type of its column."""

    def __init__(self, value: object, column_type: ColumnType) -> None:
        shown = repr(value if len(str(value)) <= 40 else f"{str(value)[:40]}…")
        super().__init__(f"must be {_ARTICLED[column_type]}, got {shown}")
        self.column_type = column_type


_ARTICLED: dict[ColumnType, str] = {
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "date": "a date like 2026-03-31",
    "datetime": "a time like 2026-03-31T12:00:00Z",
    "text": "text",
}


def read(cell: Value, column_type: ColumnType, *, typed: bool = False) -> Value:
    """Return `cell` as a value of `column_type`, None when it is empty; raises `ValueMisfit`.

    `typed` says that the cells come from a format with types of its own (JSON), where "1" is a text.
    """
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    if column_type == "text":
        return cell if isinstance(cell, str) else _as_text(cell)
    if isinstance(cell, str) and cell.strip().lower() in NULL_WORDS:
        return None
    value = _convert(cell, column_type, typed=typed)
    if value is None:
        raise ValueMisfit(cell, column_type)
    return value


def infer(cells: Iterable[Value], *, typed: bool = False) -> ColumnType:
    """Return the narrowest type that nearly all of `cells` have.

    One in twenty may differ, and one in a short column: those rows are rejected rather than the type given up.
    """
    values = [cell for cell in cells if cell is not None and not is_null(cell)]
    allowed = max(len(values) // 20, 1 if len(values) >= 4 else 0)
    counted = [(sum(_convert(value, guess, typed=typed) is not None for value in values), guess) for guess in GUESSES]
    fitting, best = max(counted, key=lambda found: found[0])  # of equals the first: the narrowest
    return best if values and fitting >= len(values) - allowed else "text"


def is_null(cell: Value) -> bool:
    """Whether `cell` says nothing about its column's type."""
    return cell is None or (isinstance(cell, str) and cell.strip().lower() in NULL_WORDS | {""})


def _convert(cell: str | Native, column_type: ColumnType, *, typed: bool) -> Value:
    """Return the value, or None when `cell` is no `column_type`."""
    if not isinstance(cell, str):
        return _read_native(cell, column_type)
    if typed and column_type in ("integer", "number", "boolean"):
        return None
    return _read_text(cell.strip(), column_type)


def _read_text(text: str, column_type: ColumnType) -> Value:
    match column_type:
        case "integer":
            return int(text) if INTEGER.fullmatch(text) else None
        case "number":
            return _finite(float(text)) if NUMBER.fullmatch(text) else None
        case "boolean":
            return BOOLEANS.get(text.lower())
        case "date":
            return _read_moment(text, date) if DATE.fullmatch(text) else None
        case _:
            return _read_moment(text, datetime) if DATETIME.fullmatch(text) else None


def _read_native(cell: Native, column_type: ColumnType) -> Value:
    if isinstance(cell, bool):
        return cell if column_type == "boolean" else None
    if column_type == "integer":
        return cell if isinstance(cell, int) and abs(cell) < 2**63 else None
    return _finite(float(cell)) if column_type == "number" and abs(cell) < 1e308 else None


def _read_moment(text: str, kind: type[date]) -> str | None:
    try:
        moment = kind.fromisoformat(text.upper().replace(" ", "T"))
    except ValueError:
        return None
    if isinstance(moment, datetime) and moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
        return f"{moment.isoformat()}Z"
    return moment.isoformat()


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _as_text(cell: Native) -> str:
    return str(cell).lower() if isinstance(cell, bool) else str(cell)
