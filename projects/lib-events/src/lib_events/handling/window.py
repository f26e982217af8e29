"""Which events a consumer has taken from the log and not finished with, in the order of the log."""

import asyncio
from collections.abc import Sequence

WINDOW = 1_000  # events taken and unfinished: past it nothing more is read


class Window:
    """Begins after a position; everything up to `position` is finished."""

    def __init__(self, position: int) -> None:
        self.reached = position  # taken from the log up to here
        self.moved = asyncio.Event()  # `position` may be another one
        self._room = asyncio.Event()
        self._unfinished: dict[int, None] = {}

    @property
    def position(self) -> int:
        """Everything up to here is finished."""
        return next(iter(self._unfinished), self.reached + 1) - 1

    async def add(self, position: int) -> None:
        """Take an event, once there is room for it."""
        while len(self._unfinished) >= WINDOW:
            self._room.clear()
            await self._room.wait()
        self._unfinished[position] = None
        self.reached = position

    def reach(self, position: int) -> None:
        """Up to `position` there is nothing more to take."""
        self.reached = position
        self.moved.set()

    def finish(self, positions: Sequence[int]) -> list[int]:
        """Finish with events; returns those of them that come after one that is unfinished."""
        for position in positions:
            del self._unfinished[position]
        self._room.set()
        self.moved.set()
        return [position for position in positions if position > self.position]
