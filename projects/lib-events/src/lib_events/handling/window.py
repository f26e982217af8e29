"""Which events a consumer has taken from the log and not finished with, in the order of the log."""

import asyncio
from collections.abc import Sequence

WINDOW = 1_000  # events taken and unfinished: past it nothing more is read …
WINDOW_BYTES = 16 * 1024 * 1024  # … nor past so much of them


class Window:
    """Begins after a position; everything up to `position` is finished."""

    def __init__(self, position: int) -> None:
        self.reached = position  # taken from the log up to here
        self._room = asyncio.Event()
        self._unfinished: dict[int, int] = {}  # and their sizes
        self._bytes = 0

    @property
    def position(self) -> int:
        """Everything up to here is finished."""
        return next(iter(self._unfinished), self.reached + 1) - 1

    async def add(self, position: int, size: int = 0) -> None:
        """Take an event of so many bytes, once there is room for it."""
        while len(self._unfinished) >= WINDOW or self._bytes >= WINDOW_BYTES:
            self._room.clear()
            await self._room.wait()
        self._unfinished[position] = size
        self._bytes += size
        self.reached = position

    def reach(self, position: int) -> None:
        """Up to `position` there is nothing more to take."""
        self.reached = position

    def finish(self, positions: Sequence[int]) -> list[int]:
        """Finish with events; returns those of them that come after one that is unfinished."""
        for position in positions:
            self._bytes -= self._unfinished.pop(position)
        self._room.set()
        return [position for position in positions if position > self.position]
