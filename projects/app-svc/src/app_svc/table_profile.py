"""What is in a table: for each column its type, smallest and largest value, distinct and missing values."""

from collections.abc import Sequence
from dataclasses import dataclass

from app_svc.column_types import ColumnType, Value
from app_svc.table_plan import Column


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """One column of a profile; `min` and `max` of a text go by its characters."""

    name: str
    type: ColumnType
    min: Value
    max: Value
    distinct: int
    nulls: int


def profile_columns(columns: Sequence[Column], rows: Sequence[Sequence[Value]]) -> list[ColumnProfile]:
    """Profile `rows` column by column."""
    return [_profile(column, [row[index] for row in rows]) for index, column in enumerate(columns)]


def _profile(column: Column, values: Sequence[Value]) -> ColumnProfile:
    present = {value for value in values if value is not None}
    nulls = sum(value is None for value in values)
    smallest = min(present, default=None)
    largest = max(present, default=None)
    return ColumnProfile(column.name, column.type, smallest, largest, len(present), nulls)
