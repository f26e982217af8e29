"""Prepared statements: described in SQLAlchemy Core, put into words once, and run on the driver itself.

Building a statement, finding its text in SQLAlchemy's cache and wrapping its result cost several times what a database
takes to find one row by its key. What every request asks for is therefore prepared when its module is loaded, and
runs in the same transaction as everything else. Parameters and rows are what the driver takes and gives: texts,
numbers, booleans and bytes.
"""

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Protocol

from sqlalchemy import ClauseElement, Dialect, Select

type Values = Sequence[Any]


class Driver(Protocol):
    """A database's own connection, in a transaction."""

    def fetch(self, text: str, values: Values) -> Sequence[Values]:
        """Return the rows of a query."""
        ...

    def change(self, text: str, values: Values) -> int:
        """Return how many rows a statement changed."""
        ...


class Prepared:
    """One statement; of an INSERT without values, `columns` are those that get some.

    What `make` makes of a row, which must be immutable, is remembered for the last `remembered` different rows: the
    database is asked each time, and where it says the same as before, the same is what it means.
    """

    def __init__(
        self,
        statement: ClauseElement,
        *,
        columns: Sequence[str] = (),
        make: Callable[[Any], Any] | None = None,
        remembered: int = 0,
    ) -> None:
        self._statement = statement
        self._columns = columns
        self._make = make
        self._remembered = remembered
        self._wordings: dict[str, _Wording] = {}

    def fetch(self, driver: Driver, dialect: Dialect, parameters: Mapping[str, Any]) -> list[Any]:
        """Return the rows, named tuples or what `make` makes of them; a missing parameter is a `KeyError`."""
        wording = self._in(dialect)
        return [wording.row(values) for values in driver.fetch(wording.text, wording.values(parameters))]

    def change(self, driver: Driver, dialect: Dialect, parameters: Mapping[str, Any]) -> int:
        """Run the statement and return how many rows it changed."""
        wording = self._in(dialect)
        return driver.change(wording.text, wording.values(parameters))

    def _in(self, dialect: Dialect) -> "_Wording":
        wording = self._wordings.get(dialect.name)
        if wording is None:
            wording = self._wordings[dialect.name] = _Wording(self._statement, self._columns, dialect)
            if self._make is not None:
                wording.row = lru_cache(self._remembered)(partial(_made, self._make, wording.row))
        return wording


class _Wording:
    """A statement in one dialect."""

    def __init__(self, statement: ClauseElement, columns: Sequence[str], dialect: Dialect) -> None:
        compiled: Any = statement.compile(dialect=dialect, column_keys=list(columns) or None)
        self.text = str(compiled)
        self._names: Sequence[str] = compiled.positiontup
        given = {bound.key for bound in compiled.binds.values() if bound.required} | set(columns)
        fixed = compiled.construct_params(_check=False)
        self._fixed = {name: value for name, value in fixed.items() if name not in given}
        self.row: Callable[[Values], Any] = _reader(statement, dialect) if isinstance(statement, Select) else tuple

    def values(self, parameters: Mapping[str, Any]) -> Values:
        """Return the parameters in the order of the text."""
        fixed = self._fixed
        return [fixed[name] if name in fixed else parameters[name] for name in self._names]


def _made(make: Callable[[Any], Any], row: Callable[[Values], Any], values: Values) -> Any:
    return make(row(values))


def _reader(statement: Select[Any], dialect: Dialect) -> Callable[[Values], Any]:
    """Return what makes a row of what the driver gives."""
    columns = statement.selected_columns
    row: Any = namedtuple("Row", [column.name for column in columns], rename=True)  # type: ignore[misc]  # noqa: PYI024
    processors = [column.type.dialect_impl(dialect).result_processor(dialect, None) for column in columns]
    differing = [(place, processor) for place, processor in enumerate(processors) if processor is not None]
    if not differing:
        make: Callable[[Values], Any] = row._make
        return make

    def read(values: Values) -> Any:
        read_values = list(values)
        for place, processor in differing:
            read_values[place] = processor(read_values[place])
        return row._make(read_values)

    return read
