"""Timers in memory: a heap over an injectable clock, with one timer of the event loop for the earliest."""

import asyncio
import heapq
import itertools
from collections.abc import Callable

from lib_events.clock import Clock

LONGEST_SECONDS = 5.0  # look again after this: the machine's clock may have been set, or it was asleep
SWEEP_ABOVE = 1_000  # cancelled timers that may stay in the heap


class Timer:
    """One call that is wanted at `at` (micros), until it is made or cancelled."""

    __slots__ = ("_timers", "at", "callback")

    def __init__(self, timers: "Timers", at: int, callback: Callable[[], None]) -> None:
        self._timers = timers
        self.at = at
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Forget the call and let go of everything it holds."""
        if self.callback is not None:
            self.callback = None
            self._timers.one_was_cancelled()


class Timers:
    """Calls back when the clock has reached a time."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._heap: list[tuple[int, int, Timer]] = []
        self._cancelled = 0
        self._numbers = itertools.count()
        self._handle: asyncio.TimerHandle | None = None
        self._armed_for: int | None = None

    def add(self, at: int, callback: Callable[[], None]) -> Timer:
        """Call `callback` at `at` (micros), soon if that has passed, unless the timer is cancelled."""
        timer = Timer(self, at, callback)
        heapq.heappush(self._heap, (at, next(self._numbers), timer))
        if self._armed_for is None or at < self._armed_for:
            self._arm()
        return timer

    def next_at(self) -> int | None:
        """When the earliest timer is due."""
        while self._heap and self._heap[0][2].callback is None:
            heapq.heappop(self._heap)
            self._cancelled -= 1
        return self._heap[0][0] if self._heap else None

    def one_was_cancelled(self) -> None:
        """Sweep the heap when most of it is cancelled: a wait of years that ended early must not stay for years."""
        self._cancelled += 1
        if self._cancelled > max(SWEEP_ABOVE, len(self._heap) // 2):
            self._heap = [entry for entry in self._heap if entry[2].callback is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def fire_due(self) -> None:
        """Call back everything that is due."""
        self._armed_for = None
        now = self.clock.micros()
        try:
            while (at := self.next_at()) is not None and at <= now:
                timer = heapq.heappop(self._heap)[2]
                callback, timer.callback = timer.callback, None
                assert callback is not None  # noqa: S101 - `next_at` passes over the cancelled ones
                callback()
        finally:
            self._arm()

    def close(self) -> None:
        """Forget every timer."""
        self._heap.clear()
        self._cancelled = 0
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
