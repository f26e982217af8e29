"""One start/stop lifecycle for every background loop."""

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

logger = logging.getLogger(__name__)

FIRST_RESTART_SECONDS = 0.1
LAST_RESTART_SECONDS = 5.0  # so soon after the end of an outage, however long, all goes on


class Loop(ABC):
    """Work that goes on in the background: subclasses write `run`.

    A `run` that raises is logged and started again, later each time; a `run` that returns is done.
    Stopping cancels `run` and waits until it has ended, so `run` cleans up in `finally`. A loop that has something to
    finish first says in `told_to_stop` how long it may take, and then ends by itself.
    """

    cleanup_seconds: ClassVar[float] = 1.0  # cleaning up may take so long before it is disturbed

    def __init__(self, *, name: str | None = None) -> None:
        self.name = name or type(self).__name__
        self.error: Exception | None = None  # what ended the last life of `run`; None while all is well
        self._task: asyncio.Task[None] | None = None
        self._woken = False
        self._pausing: asyncio.Future[None] | None = None
        self._stopping = False

    @abstractmethod
    async def run(self) -> None:
        """Do the work until done or cancelled."""

    @property
    def running(self) -> bool:
        """Whether the loop has been started and has not ended."""
        return self._task is not None and not self._task.done()

    @property
    def is_pausing(self) -> bool:
        """Whether the loop waits in a `pause` and nobody has woken it."""
        return self._pausing is not None and not self._woken

    def told_to_stop(self) -> float:
        """Begin nothing new; returns for how many seconds to wait for what is under way."""
        return 0.0

    def start(self) -> None:
        """Begin in a task of its own; starting a running loop changes nothing."""
        if not self.running:
            self._stopping = False
            self._task = asyncio.create_task(self._live(), name=self.name)

    async def stop(self) -> None:
        """End the loop and wait until it has ended; stopping twice is safe."""
        task = self._task
        if task is None:
            return
        self._stopping = True
        if seconds := self.told_to_stop():
            await asyncio.wait([task], timeout=seconds)
        # A cancellation that meets the very moment an await completes can be lost: ask until it is heard.
        while not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=self.cleanup_seconds)
        self._task = None

    def wake(self) -> None:
        """End the loop's current or next `pause` at once."""
        self._woken = True
        _end(self._pausing)

    async def pause(self, seconds: float) -> bool:
        """Wait until woken, at most `seconds`; returns whether it was woken."""
        if not self._woken:
            loop = asyncio.get_running_loop()
            self._pausing = loop.create_future()
            timer = loop.call_later(seconds, _end, self._pausing)
            try:
                await self._pausing
            finally:
                timer.cancel()
                self._pausing = None
        woken, self._woken = self._woken, False
        return woken

    async def _live(self) -> None:
        delay = FIRST_RESTART_SECONDS
        while True:
            began = time.monotonic()
            try:
                await self.run()
            except Exception as error:
                if self._stopping:  # a library turned the cancellation into an error of its own
                    return
                if time.monotonic() - began > LAST_RESTART_SECONDS:
                    delay = FIRST_RESTART_SECONDS
                self.error = error
                logger.exception("%s failed, starting again in %.1f s", self.name, delay)
            else:
                return
            await asyncio.sleep(delay)
            delay = min(delay * 2, LAST_RESTART_SECONDS)


def _end(pausing: asyncio.Future[None] | None) -> None:
    if pausing is not None and not pausing.done():
        pausing.set_result(None)


@asynccontextmanager
async def running(*loops: Loop) -> AsyncIterator[None]:
    """Keep `loops` running inside the block; they stop in reverse order."""
    try:
        for loop in loops:
            loop.start()
        yield
    finally:
        for loop in reversed(loops):
            await loop.stop()


async def for_ever() -> None:
    """Wait until cancelled."""
    await asyncio.get_running_loop().create_future()


async def first_of(*events: asyncio.Event, seconds: float | None = None) -> None:
    """Wait until one of `events` is set, at most `seconds`."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
