"""The commands of one call that are running now: so many at once, and ended when the call is."""

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock, Semaphore
from typing import BinaryIO


class CallEnded(Exception):
    """Somebody has ended the call: nothing more is started."""


class Processes:
    """Starts commands for threads, at most `at_once` of them, and ends them all."""

    def __init__(self, at_once: int) -> None:
        self._slots = Semaphore(at_once)
        self._lock = Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._has_ended = False

    def run(self, arguments: Sequence[str], *, at: Path, environment: Mapping[str, str], output: BinaryIO) -> int:
        """Run a command to its end and return its exit code; raises `CallEnded`, and `OSError` like `subprocess`."""
        with self._slots:
            process = self._start(arguments, at, environment, output)
            try:
                return process.wait()
            finally:
                with self._lock:
                    self._running.discard(process)

    def _start(
        self, arguments: Sequence[str], at: Path, environment: Mapping[str, str], output: BinaryIO
    ) -> "subprocess.Popen[bytes]":
        with self._lock:
            if self._has_ended:
                raise CallEnded("the call was ended")
            process = subprocess.Popen(
                arguments, cwd=at, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
            self._running.add(process)
        return process

    def end(self) -> None:
        """End what is running; what would start later does not."""
        with self._lock:
            self._has_ended = True
            for process in self._running:
                with suppress(ProcessLookupError):
                    process.terminate()
