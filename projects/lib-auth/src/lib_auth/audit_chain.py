"""The audit's hash chain, for whoever keeps it and whoever checks it: how a line is hashed, and what must be found.

Each line's hash is SHA-256 over the text of the hash before it and the line's own canonical JSON. So a line that was
changed, taken out, put in or moved no longer fits. Only lines cut off at the very end leave no trace in what is left:
they are found by a head (the last line's position and hash) that was written down elsewhere. Lines that were pruned
at the beginning are told of by one that comes later.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

FIELDS = frozenset(("about", "address", "at", "detail", "id", "position", "what", "who"))
HEAD = re.compile(r"(\d{1,18}):([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Head:
    """A place in the chain: the position of a line and its hash."""

    position: int
    hash: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` wrote; raises `ValueError`."""
        found = HEAD.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"a head must be POSITION:HASH as audit verify prints it, got {text!r}")
        return cls(int(found[1]), found[2])

    def __str__(self) -> str:
        return f"{self.position}:{self.hash}"


START = Head(0, "0" * 64)  # before the first line there ever was
PRUNED = "audit.pruned"  # a line that says which was the last of those that are gone


class ChainBroken(Exception):
    """The audit is not what it was; `position` is the first line that says so."""

    def __init__(self, position: int, why: str) -> None:
        super().__init__(f"line {position}: {why}")
        self.position = position
        self.why = why


def canonical(line: Mapping[str, Any]) -> bytes:
    """Return a line as RFC 8785 writes JSON: names sorted, no blanks, UTF-8; its hash is left out."""
    content = {name: line[name] for name in FIELDS}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "surrogatepass")


def link(previous: str, line: Mapping[str, Any]) -> str:
    """Return the hash of a line that follows the one with the hash `previous`."""
    return hashlib.sha256(previous.encode() + canonical(line)).hexdigest()


class ChainVerifier:
    """Follows the chain line by line from `start`; `known` is a head that was seen before and must still be there."""

    def __init__(self, start: Head, *, known: Head | None = None) -> None:
        self.head = start
        self.lines = 0
        self.since: str | None = None  # when the first of the lines was written
        self._known = known
        self._start = start
        self._is_told = start == START
        if known is not None and known.position < start.position:
            raise ChainBroken(known.position, f"it was pruned, so nobody can tell; compare with a head from {start} on")
        self._compare()

    def add(self, line: Mapping[str, Any]) -> None:
        """Check the next line; raises `ChainBroken`."""
        expected = self.head.position + 1
        if line.get("position") != expected:
            raise ChainBroken(expected, f"it is missing: after {self.head.position} comes {line.get('position')}")
        if not line.keys() >= FIELDS or line.get("hash") != link(self.head.hash, line):
            raise ChainBroken(expected, "its hash does not fit: it or the order of the lines was changed")
        self.since = self.since or str(line["at"])
        self._is_told |= line["what"] == PRUNED and line["detail"].get("last") == str(self._start)
        self.head = Head(expected, str(line["hash"]))
        self.lines += 1
        self._compare()

    def finish(self, told: Head, *, waiting: int = 0) -> None:
        """Check that the lines end where the service says, and not before the known head; raises `ChainBroken`.

        Of those that are gone at the beginning one says so, unless it is among the lines that wait for their place.
        """
        if self.head.position < told.position:
            raise ChainBroken(self.head.position + 1, f"it is missing: the audit goes on to {told.position}")
        if self.head.position == told.position and self.head != told:
            raise ChainBroken(told.position, f"its hash is {self.head.hash}, the service says {told.hash}")
        if self._known is not None and self.head.position < self._known.position:
            raise ChainBroken(self.head.position + 1, f"it is missing: the known head is {self._known.position}")
        if not self._is_told and not waiting:
            raise ChainBroken(
                self._start.position, "it and those before it are gone, and no line says that they were pruned"
            )

    def verdict(self) -> str:
        """Say what was found, for people."""
        if not self.lines:
            return f"0 lines, head {self.head}"
        return f"{self.lines} lines, unbroken since {self.since}, head {self.head}"

    def _compare(self) -> None:
        known = self._known
        if known is not None and known.position == self.head.position and known != self.head:
            raise ChainBroken(known.position, f"its hash is {self.head.hash}, known is {known.hash}")
