"""A span that has ended: what was done, when, within what, and how it went."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lib_events.trace_context import TraceContext

type SpanKind = Literal["internal", "server", "consumer"]
type Attribute = str | int | float | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One span of a trace; times are microseconds. With an `error`, the type of what went wrong, it has failed."""

    name: str
    context: TraceContext
    parent: TraceContext | None
    began_at: int
    ended_at: int
    kind: SpanKind = "internal"
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    error: str | None = None
