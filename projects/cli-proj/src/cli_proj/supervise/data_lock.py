"""One supervisor per data folder: a lock the kernel takes back whatever happens to its holder."""

import fcntl
import os
from pathlib import Path

LOCK = "up.lock"


class DataInUse(Exception):
    """Another supervisor holds the data folder; `pid` says which, if it can be read."""

    def __init__(self, data: Path, pid: int | None) -> None:
        super().__init__(f"{data} is in use by process {pid or 'unknown'}")
        self.data = data
        self.pid = pid


class DataLock:
    """Held from `take` to `release`, or to the end of the process; children do not inherit it."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._descriptor: int | None = None

    def take(self) -> None:
        """Take the lock; raises `DataInUse`."""
        descriptor = os.open(self._data / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).strip()
            os.close(descriptor)
            raise DataInUse(self._data, int(holder) if holder.isdigit() else None) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; releasing twice is safe."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None
