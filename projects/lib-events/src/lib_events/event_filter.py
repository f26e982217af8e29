"""Which events somebody wants: the same question asked of the table, of rows in memory and of events."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from sqlalchemy import Select, bindparam, or_

from lib_events.event import Event
from lib_events.tables import SEGMENT_TYPE, events
from lib_events.tail import LogRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to read: `types` are exact names or patterns ending in `.*`, none for all.

    Rows are segments, too, in which there may be something.
    """

    types: tuple[str, ...] = ()
    subject: str | None = None
    correlation: str | None = None
    own_only: bool = False

    def takes(self, row: LogRow) -> bool:
        """Whether a row has what is wanted, or may have; the same as `narrow` asks of the table."""
        if row.imported and self.own_only:
            return False
        return row.type == SEGMENT_TYPE or (
            is_one_of(row.type, self.types)
            and (self.subject is None or row.subject == self.subject)
            and (self.correlation is None or row.correlation == self.correlation)
        )

    def may_be_in(self, segment: bytes) -> bool:
        """Whether a segment names what is wanted; few do, and the others need not be decoded."""
        return any(name in segment for name in _names(self.types))

    @property
    def shape(self) -> "Wanted":
        """The same for all who ask the same of another subject or correlation."""
        return replace(self, subject=self.subject and "?", correlation=self.correlation and "?")

    def narrow(self, query: Select[Any]) -> Select[Any]:
        """Let `query` ask only for rows that have what is wanted, or may have: given as `subject` and `correlation`."""
        if self.types and "*" not in self.types:
            wanted = [
                events.c.type.startswith(pattern[:-1], autoescape=True)
                if pattern.endswith(".*")
                else events.c.type == pattern
                for pattern in self.types
            ]
            query = query.where(or_(*wanted, events.c.type == SEGMENT_TYPE))
        if self.subject is not None:
            query = query.where(or_(events.c.subject == bindparam("subject"), events.c.type == SEGMENT_TYPE))
        if self.correlation is not None:
            query = query.where(or_(events.c.correlation == bindparam("correlation"), events.c.type == SEGMENT_TYPE))
        if self.own_only:
            query = query.where(~events.c.imported)
        return query

    def matches(self, event: Event) -> bool:
        """Whether an event has what is wanted."""
        return matches(event, self.types, self.subject, self.correlation)


def matches(event: Event, types: Sequence[str], subject: str | None = None, correlation: str | None = None) -> bool:
    """Whether `event` passes the filter."""
    return (
        is_one_of(event.type, tuple(types))
        and (subject is None or event.subject == subject)
        and (correlation is None or event.extensions.get("correlationid") == correlation)
    )


def type_matches(name: str, pattern: str) -> bool:
    """Whether the event type `name` is `pattern`, or begins with it when it ends in `.*` (`*` takes all)."""
    if pattern == "*":
        return True
    return name.startswith(pattern[:-1]) if pattern.endswith(".*") else name == pattern


@lru_cache(maxsize=256)
def _names(types: tuple[str, ...]) -> tuple[bytes, ...]:
    """What a text must have that names one of `types`: the whole name, or what a pattern begins with."""
    return tuple(pattern.removesuffix("*").encode() for pattern in types) or (b"",)


@lru_cache(maxsize=4_096)
def is_one_of(name: str, types: tuple[str, ...]) -> bool:
    """Whether the event type `name` is one of `types` (names or patterns; none: all)."""
    return not types or any(type_matches(name, pattern) for pattern in types)
