"""Lists over HTTP: one page, how long it may be, and where it begins."""

from typing import Annotated

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from lib_workflows.paging import cut, decode_cursor, encode_cursor

__all__ = ["QUEUE_NAME", "STORABLE", "CursorText", "Limit", "Page", "cut", "decode_cursor", "encode_cursor"]

QUEUE_NAME = r"^([^/.\x00]|\.\.?[^/.\x00]|\.\.\.)[^/\x00]*$"  # its page is found by it: no slash, neither . nor ..
STORABLE = r"^[^\x00]*$"  # PostgreSQL stores no NUL character

Limit = Annotated[int, Query(ge=1, le=200, description="Items in a page, at most")]
CursorText = Annotated[str | None, Query(max_length=500, description="The `next_cursor` of the page before")]


class Page[T](BaseModel):
    """One page of a list; `next_cursor` is null on the last."""

    model_config = ConfigDict(from_attributes=True)

    items: list[T]
    next_cursor: str | None = Field(default=None)
