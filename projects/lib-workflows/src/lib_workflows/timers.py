"""Timers in memory: a heap over an injectable clock, with one timer of the event loop for the earliest."""

import asyncio
import heapq
import itertools
from collections.abc import Callable

from lib_events.clock import Clock

LONGEST_SECONDS = 3600.0  # look again after this: the machine's clock may have been set


class Timers:
    """Calls back when the clock has reached a time. A callback that is no longer wanted finds that out itself."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._handle: asyncio.TimerHandle | None = None
        self._armed_for: int | None = None

    def add(self, at: int, callback: Callable[[], None]) -> None:
        """Call `callback` at `at` (micros), soon if that has passed."""
        heapq.heappush(self._heap, (at, next(self._numbers), callback))
        if self._armed_for is None or at < self._armed_for:
            self._arm()

    def next_at(self) -> int | None:
        """When the earliest timer is due."""
        return self._heap[0][0] if self._heap else None

    def fire_due(self) -> None:
        """Call back everything that is due."""
        self._armed_for = None
        now = self.clock.micros()
        try:
            while self._heap and self._heap[0][0] <= now:
                heapq.heappop(self._heap)[2]()
        finally:
            self._arm()

    def close(self) -> None:
        """Forget every timer."""
        self._heap.clear()
        if self._handle is not None:
            self._handle.cancel()

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._armed_for = self.next_at()
        if self._armed_for is not None:
            seconds = max(0.0, (self._armed_for - self.clock.micros()) / 1e6)
            loop = asyncio.get_running_loop()
            self._handle = loop.call_later(min(seconds, LONGEST_SECONDS), self.fire_due)
