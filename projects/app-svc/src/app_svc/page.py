"""Lists in pages: a cursor names the last item of a page, so that items that arrive meanwhile shift nothing."""

import base64
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, Field
from pydantic_core import from_json, to_json

from lib_events.problem import Problem

# PostgreSQL stores no NUL character; a cursor holds numbers of 64 bits.
STORABLE = r"^[^\x00]*$"
INTEGER_LIMIT = 2**63

Limit = Annotated[int, Query(ge=1, le=200, description="Items in a page, at most")]
CursorText = Annotated[str | None, Query(max_length=500, description="The `next_cursor` of the page before")]


class Page[T](BaseModel):
    """One page of a list; `next_cursor` is null on the last."""

    items: list[T]
    next_cursor: str | None = Field(default=None)


def encode_cursor(*parts: int | str) -> str:
    """Make the cursor of an item; only we read it."""
    return base64.urlsafe_b64encode(to_json(parts)).rstrip(b"=").decode()


def decode_cursor(text: str | None, *kinds: type) -> tuple[Any, ...] | None:
    """Read a cursor made of values of `kinds`; raises the `Problem` 422."""
    if text is None:
        return None
    try:
        parts = from_json(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except ValueError:
        parts = None
    if not isinstance(parts, list) or [type(part) for part in parts] != list(kinds) or not all(map(_fits, parts)):
        raise Problem(
            422,
            "invalid-cursor",
            detail="cursor must be the next_cursor of an earlier page of the same list, got another",
        )
    return tuple(parts)


def _fits(part: int | str) -> bool:
    return "\0" not in part if isinstance(part, str) else abs(part) < INTEGER_LIMIT


def cut[T](rows: Sequence[T], limit: int) -> tuple[Sequence[T], T | None]:
    """Split rows that were read up to `limit + 1`: the page, and its last row when more follow."""
    page = rows[:limit]
    return page, page[-1] if len(rows) > limit else None
