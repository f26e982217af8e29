"""Performs the tasks that Turborepo does not know. The process that it starts for each is only a messenger: it says
which task it is, waits, and ends with its exit code. To import a whole pipeline in each takes longer than many tasks.
"""

import json
import shutil
import socket
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Self

from lib_pipeline.mirror import log_file, out_folder
from lib_pipeline.performing import CHANGED_MEANWHILE, Order, Outcome, Performed, perform
from lib_pipeline.processes import Processes
from lib_pipeline.rooms import Rooms

LONGEST = 70  # what a folder's path may take of the 104 to 108 bytes that a socket's has
UNKNOWN = "2 \n"
CODES = {Outcome.PASSED: 0, Outcome.FAILED: 1, Outcome.CHANGED: CHANGED_MEANWHILE}


class Errands:
    """Open while Turborepo runs: `address` is where its messengers find us."""

    def __init__(self, orders: Mapping[str, Order], rooms: Rooms, mirror: Path, *, at_once: int) -> None:
        self._orders = orders
        self._rooms = rooms
        self._mirror = mirror
        self._processes = Processes(at_once)
        self._folder = Path(tempfile.mkdtemp(prefix="pipeline-", dir=_short_enough(tempfile.gettempdir())))
        self._listener = socket.socket(socket.AF_UNIX)

    @property
    def address(self) -> str:
        """The path of a socket in a folder that only we can enter."""
        return str(self._folder / "errands")

    def __enter__(self) -> Self:
        self._listener.bind(self.address)
        self._listener.listen(socket.SOMAXCONN)
        Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._processes.end()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for messengers
        self._listener.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _listen(self) -> None:
        while True:
            try:
                messenger, _ = self._listener.accept()
            except OSError:
                return
            Thread(target=self._answer, args=(messenger,), daemon=True).start()

    def _answer(self, messenger: socket.socket) -> None:
        """A messenger that was ended meanwhile hears nothing, and nobody minds."""
        try:
            with messenger, messenger.makefile("rw", encoding="utf-8") as talk:
                name, _, key = talk.readline().strip().rpartition(" ")
                order = self._orders.get(name)
                talk.write(self._performed(order) if order is not None and order.key == key else UNKNOWN)
        except OSError:
            return

    def _performed(self, order: Order) -> str:
        out = out_folder(self._mirror, order.member, order.target)
        log = log_file(self._mirror, order.member, order.target)
        return _told(perform(order, self._rooms, self._processes, out=out, log=log))


def _short_enough(folder: str) -> str:
    """A folder for temporary files whose path leaves room for a socket's name."""
    return folder if len(folder) < LONGEST else "/tmp"  # noqa: S108 - mkdtemp makes a folder there that is only ours


def _told(done: Performed) -> str:
    """The exit code for Turborepo, and for `Listener` how it ended."""
    words = json.dumps({"outcome": done.outcome, "seconds": done.seconds, "note": done.note})
    return f"{CODES[done.outcome]} {words}\n"
