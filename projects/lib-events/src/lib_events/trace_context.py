"""Which trace something belongs to, and where in it (W3C Trace Context); ids that follow from what they name.

Whoever tells of the same thing twice, in another process or after a crash, tells of the same span.
"""

import re
from dataclasses import dataclass
from hashlib import blake2b

# Section 3.2: version 00, lower-case hex; all zeros are invalid.
TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
SAMPLED = 1  # section 3.2.2.5.1
TRACE_BYTES = 16
SPAN_BYTES = 8


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span: the trace it is in, its id there, and whether somebody keeps it."""

    trace_id: str
    span_id: str
    is_sampled: bool = False

    @classmethod
    def parse(cls, traceparent: str | None) -> "TraceContext | None":
        """Read a `traceparent`; None for what is none."""
        found = TRACEPARENT.fullmatch(traceparent) if traceparent else None
        return None if found is None else cls(found[1], found[2], bool(int(found[3], 16) & SAMPLED))

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{int(self.is_sampled):02x}"


def trace_named(name: str) -> str:
    """The id of the trace of that name."""
    return _digest(name, TRACE_BYTES)


def span_named(*parts: object) -> str:
    """The id of the span of that name."""
    return _digest("\0".join(map(str, parts)), SPAN_BYTES)


def _digest(name: str, size: int) -> str:
    digest = blake2b(name.encode(), digest_size=size).digest()
    return (digest if any(digest) else b"\1" * size).hex()
