"""What the operating system knows of a process and its children (Linux; elsewhere unknown)."""

from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
KIBIBYTE = 1024


def memory_bytes(pid: int, *, descendants: bool = True) -> int | None:
    """The memory of a process, shared pages counted by their share (PSS), with or without its descendants."""
    own = _pss(pid)
    if own is None or not descendants:
        return own
    return own + sum(memory_bytes(child) or 0 for child in children(pid))


def children(pid: int) -> list[int]:
    """The processes that `pid` started and that still run."""
    with suppress(OSError):
        return [int(number) for number in (PROC / f"{pid}/task/{pid}/children").read_text().split()]
    return []


def _pss(pid: int) -> int | None:
    with suppress(OSError, IndexError, ValueError):
        for line in (PROC / f"{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * KIBIBYTE
    return None
