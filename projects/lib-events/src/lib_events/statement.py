"""Hot statements: SQL kept in named files, fed with rows gathered over a whole group commit.

On SQLite a statement runs by `executemany`. On PostgreSQL all statements of a group become one: each is a
CTE whose rows come from `unnest`, so a group commit is one round trip and one implicit transaction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

ROWS = "{rows}"


@dataclass(frozen=True, slots=True, eq=False)  # each is made once: looking one up need not compare their texts
class Statement:
    """One hot statement in both dialects.

    `columns` names the values of a row in order, each with its PostgreSQL type. The SQLite text has one `?`
    per column. The PostgreSQL text selects from `{rows}`, a relation of those columns; it must be
    data-modifying, and it cannot see what the other statements of its group write.
    """

    name: str
    sqlite: str
    postgresql: str
    columns: tuple[tuple[str, str], ...]

    @classmethod
    def load(cls, package: str, name: str, columns: Mapping[str, str]) -> "Statement":
        """Read `<name>.sqlite.sql` and `<name>.postgresql.sql` from the package's `sql` folder."""
        folder = files(package) / "sql"
        postgresql = (folder / f"{name}.postgresql.sql").read_text()
        if ROWS not in postgresql:
            raise ValueError(f"{name}.postgresql.sql must select from {ROWS}")
        return cls(name, (folder / f"{name}.sqlite.sql").read_text(), postgresql, tuple(columns.items()))


class Write(NamedTuple):
    """One row for a hot statement; its values are in the order of the statement's columns."""

    statement: Statement
    row: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Fence:
    """A query that must return a row, or the commit is refused: the writer lost its right to write.

    PostgreSQL text with `$1 …` parameters; it locks the row it reads (`FOR KEY SHARE`). SQLite needs none:
    the file lock is the fence there.
    """

    query: str
    parameters: tuple[Any, ...]


def by_statement(writes: Sequence[Write]) -> dict[Statement, list[tuple[Any, ...]]]:
    """Gather the rows of `writes` per statement, in order of first use."""
    gathered: dict[Statement, list[tuple[Any, ...]]] = {}
    for statement, row in writes:
        if statement in gathered:
            gathered[statement].append(row)
        else:
            gathered[statement] = [row]
    return gathered


def compose_postgresql(writes: Sequence[Write], fence: Fence | None) -> tuple[str, list[Any]]:
    """Make the one statement that writes a whole group; it returns one row when the fence held.

    Its parts see nothing of one another, so they may come in one order, whatever came first: each other one would be
    another text to keep, and to prepare.
    """
    gathered = dict(sorted(by_statement(writes).items(), key=lambda each: each[0].name))
    parameters: list[Any] = list(fence.parameters) if fence else []
    for rows in gathered.values():
        parameters.extend(list(column) for column in zip(*rows, strict=True))
    return _compose(tuple(gathered), fence.query if fence else None, len(fence.parameters) if fence else 0), parameters


@cache
def _compose(statements: tuple[Statement, ...], fence_query: str | None, first: int) -> str:
    parts = [f"fence AS MATERIALIZED ({fence_query or 'SELECT 1'})"]
    number = first
    for statement in statements:
        names = ", ".join(name for name, _ in statement.columns)
        arrays = ", ".join(
            f"${number + offset}::{kind}[]" for offset, (_, kind) in enumerate(statement.columns, start=1)
        )
        number += len(statement.columns)
        rows = (
            f"(SELECT * FROM unnest({arrays}) AS given({names})"  # noqa: S608 - names and types are ours
            f" WHERE EXISTS (SELECT FROM fence)) AS rows({names})"
        )
        parts.append(f"{statement.name} AS ({statement.postgresql.replace(ROWS, rows)})")
    return f"WITH {', '.join(parts)} SELECT 1 FROM fence"  # noqa: S608 - composed from our own files
