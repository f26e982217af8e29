"""How the garbage collector treats a service: what was loaded at the start stays, and bursts are no reason to look."""

import gc
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

YOUNG_OBJECTS = 200_000  # made since the last look; so many are two thousand runs under way, and live on
LOOKS_PER_OLDER = 20


def load() -> None:
    """Call before anything else is loaded: what comes now stays, and looking at it again and again takes time."""
    gc.disable()
    # httpx brings a command line of its own where click, pygments and rich are: 0.1 s of each start, for nobody.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # Python's word for "not to be imported"


def settle() -> None:
    """Call once everything is loaded: never look at that, and less often at what comes and goes.

    One look now would cost an eighth of a service's start (0.2 s), and free 3 MB at most.
    """
    gc.freeze()
    gc.enable()
    gc.set_threshold(YOUNG_OBJECTS, LOOKS_PER_OLDER, LOOKS_PER_OLDER)


class CpuBudget:
    """What a thread may use of the CPU inside the block; what the garbage collector takes there does not count.

    With millions of objects one of its looks takes as long as a transaction function may, and it is nobody's fault.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until = 0.0
        self._look_began = 0.0

    def __enter__(self) -> Self:
        self._until = time.thread_time() + self._seconds
        gc.callbacks.append(self._collects)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        gc.callbacks.remove(self._collects)

    @property
    def is_spent(self) -> bool:
        """Whether more than that was used."""
        return time.thread_time() > self._until

    def _collects(self, phase: str, _info: Mapping[str, int]) -> None:
        if phase == "start":
            self._look_began = time.thread_time()
        else:
            self._until += time.thread_time() - self._look_began
