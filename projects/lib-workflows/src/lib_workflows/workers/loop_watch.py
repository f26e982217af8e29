"""Notices that something blocks the event loop, and says which line: nothing else runs meanwhile, in no run."""

import asyncio
import logging
import sys
import threading
import time
from pathlib import Path
from types import FrameType

logger = logging.getLogger(__name__)

STANDARD_LIBRARY = str(Path(asyncio.__file__).parent)
OURS = str(Path(__file__).parents[1])  # the whole package: in which of its rooms a step was called says nothing


class LoopWatch:
    """Asks the loop for a sign of life from a thread; looks at its stack when none comes in time.

    Costs two short wake-ups for each `blocked_seconds`. What blocks for twice that long is always noticed.
    """

    def __init__(self, *, blocked_seconds: float) -> None:
        self._blocked_seconds = blocked_seconds
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._alive = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="loop-watch", daemon=True)

    def start(self) -> None:
        """Begin watching."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching, soon."""
        self._stopping.set()
        self._alive.set()

    def _watch(self) -> None:
        while not self._stopping.wait(self._blocked_seconds):
            self._alive.clear()
            asked_at = time.monotonic()
            try:
                self._loop.call_soon_threadsafe(self._alive.set)
            except RuntimeError:  # the loop is closed
                return
            if not self._alive.wait(self._blocked_seconds):
                line = self._blocking_line()
                self._alive.wait()
                if not self._stopping.is_set():
                    seconds = time.monotonic() - asked_at
                    logger.warning(
                        "the event loop was blocked for %.1f s at %s; make it a `def` step, which runs in a thread, "
                        "or one with process=True",
                        seconds,
                        line,
                    )

    def _blocking_line(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)
        return "an unknown line" if frame is None else describe_blocking(frame)


def describe_blocking(innermost: FrameType) -> str:
    """The line of whoever was called last by the loop or by the engine."""
    frame: FrameType | None = innermost
    last = innermost
    while frame is not None and not frame.f_code.co_filename.startswith((STANDARD_LIBRARY, OURS)):
        last, frame = frame, frame.f_back
    return f"{last.f_code.co_filename}:{last.f_lineno} in {last.f_code.co_qualname}"
