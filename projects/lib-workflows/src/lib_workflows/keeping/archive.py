"""Where runs go before they are pruned: an archive keeps each run as one JSON object."""

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from lib_events.clock import Clock, SystemClock, to_datetime
from lib_events.durable_files import make_folder, sync_names

PRIVATE_FILE = 0o600


class Archive(Protocol):
    """Keeps runs that are about to be pruned."""

    async def keep(self, exported: Sequence[Mapping[str, Any]]) -> None:
        """Keep these runs; they are deleted once this has returned, and come again if it raises or nobody hears."""
        ...


class FolderArchive:
    """Appends to one file of JSON lines a day, `runs-2026-01-31.jsonl`, in a folder of its own.

    A line is on disk before its run is deleted. After a crash between the two a run is there twice, and the line that
    was being written may be cut: whoever reads takes the last line of an id, and skips one that is no JSON.
    """

    def __init__(self, folder: Path, *, clock: Clock | None = None) -> None:
        self._folder = folder
        self._clock = clock or SystemClock()

    async def keep(self, exported: Sequence[Mapping[str, Any]]) -> None:
        """See `Archive`."""
        await asyncio.to_thread(self._append, exported)

    def _append(self, exported: Sequence[Mapping[str, Any]]) -> None:
        now = to_datetime(self._clock.micros())
        path = self._folder / f"runs-{now:%Y-%m-%d}.jsonl"
        lines = [json.dumps({"archived_at": now.isoformat(), **run}, ensure_ascii=False) + "\n" for run in exported]
        make_folder(self._folder)
        with open(path, "a+b", opener=_open_private) as file:
            if _ends_within_a_line(file):
                file.write(b"\n")
            file.write("".join(lines).encode())
            file.flush()
            os.fsync(file.fileno())
        sync_names(self._folder)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, PRIVATE_FILE)


def _ends_within_a_line(file: Any) -> bool:
    if file.seek(0, os.SEEK_END) == 0:
        return False
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) != b"\n")
