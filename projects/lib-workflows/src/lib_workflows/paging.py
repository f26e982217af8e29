"""Lists in pages: a cursor names the last item of a page, so that items that arrive meanwhile shift nothing."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json, to_json
from sqlalchemy import Column, Select, tuple_

from lib_events.database import Connection
from lib_workflows.errors import WorkflowsError

PAGE = 50
INTEGER_LIMIT = 2**63  # of the databases' integers


class PageCursorInvalid(WorkflowsError, ValueError):
    """A page cursor is none that this list gave."""


@dataclass(frozen=True, slots=True)
class Page[T]:
    """Some items of a list, and where the next ones begin; None on the last page."""

    items: Sequence[T]
    next_cursor: str | None


def encode_cursor(*parts: int | str) -> str:
    """Make the cursor of an item; only `decode_cursor` reads it."""
    return base64.urlsafe_b64encode(to_json(parts)).rstrip(b"=").decode()


def decode_cursor(text: str | None, *kinds: type) -> tuple[Any, ...] | None:
    """Read a cursor made of values of `kinds`; raises `PageCursorInvalid`."""
    if text is None:
        return None
    try:
        parts = from_json(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except ValueError:
        parts = None
    if not isinstance(parts, list) or [type(part) for part in parts] != list(kinds) or not all(map(_fits, parts)):
        raise PageCursorInvalid(
            f"cursor must be the next_cursor of an earlier page of the same list, got {text[:40]!r}; "
            "leave it out to begin"
        )
    return tuple(parts)


def _fits(part: int | str) -> bool:
    """Whether a database can compare with it: PostgreSQL stores no NUL character."""
    return "\0" not in part if isinstance(part, str) else abs(part) < INTEGER_LIMIT


def cut[T](rows: Sequence[T], limit: int) -> tuple[Sequence[T], T | None]:
    """Split rows that were read up to `limit + 1`: the page, and its last row when more follow."""
    page = rows[:limit]
    return page, page[-1] if len(rows) > limit else None


@dataclass(frozen=True, slots=True)
class Order[T]:
    """The columns a list goes by, upwards or down, and what its rows become."""

    columns: Sequence[Column[Any]]
    make: Callable[[Any], T]
    is_falling: bool = True


def page_of[T](connection: Connection, query: Select[Any], order: Order[T], cursor: str | None, limit: int) -> Page[T]:
    """A page of a list in that order, behind the place of `cursor`; raises `PageCursorInvalid`."""
    place = tuple_(*order.columns)
    last = decode_cursor(cursor, *(column.type.python_type for column in order.columns))
    if last is not None:
        query = query.where(place < last if order.is_falling else place > last)
    query = query.order_by(*(column.desc() if order.is_falling else column for column in order.columns))
    rows, end = cut(connection.execute(query.limit(limit + 1)).all(), limit)
    next_cursor = None if end is None else encode_cursor(*(getattr(end, column.name) for column in order.columns))
    return Page([order.make(row) for row in rows], next_cursor)
