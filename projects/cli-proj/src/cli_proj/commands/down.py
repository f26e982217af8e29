"""`evs down`: stops what `evs up` started, through its socket; never by a bare process id."""

import asyncio
import time
from pathlib import Path

from cli_proj.exit_codes import ExitCode
from cli_proj.failure import CommandFailed
from cli_proj.messages import message
from cli_proj.supervise.control import NobodyListens, ask
from cli_proj.supervise.data_lock import LOCK, DataInUse, DataLock
from cli_proj.supervise.local_context import remove_context
from cli_proj.supervise.place import data_folder

STOP_SECONDS = 75.0  # the supervisor gives each of its services 15 s


async def down(*, data: Path | None = None) -> int:
    """Stop the product of a data folder.

    Parameters
    ----------
    data
        Which one (default: EVS_DATA, or .evs here or above).
    """
    folder = data_folder(data)
    try:
        answer = await ask(folder, "down", timeout=STOP_SECONDS)
    except NobodyListens:
        return await _clear(folder)
    await _wait_for_lock(folder)
    message(f"stopped {', '.join(reversed(answer['stopped']))} on {folder}")
    return ExitCode.OK


async def _clear(folder: Path) -> int:
    """Nobody listens: take away what a killed supervisor may have left."""
    if (folder / LOCK).exists():
        lock = DataLock(folder)
        try:
            lock.take()
        except DataInUse as error:
            text = f"the supervisor of {folder} (process {error.pid or 'unknown'}) does not answer"
            raise CommandFailed(text, hint=f"evs status; its log: {folder}/logs/up.log") from error
        except OSError as error:
            raise CommandFailed(f"{folder} must be writable: {error.strerror}") from error
        remove_context(folder)
        lock.release()
    message(f"nothing runs on {folder}")
    return ExitCode.OK


async def _wait_for_lock(folder: Path) -> None:
    """Wait until the supervisor has let go of DATA, so that `evs down && evs up` works."""
    deadline = time.monotonic() + STOP_SECONDS
    lock = DataLock(folder)
    while time.monotonic() < deadline:
        try:
            lock.take()
        except DataInUse:
            await asyncio.sleep(0.02)
        else:
            lock.release()
            return
    raise CommandFailed(f"the supervisor of {folder} stopped its services and did not end", code=ExitCode.TIMEOUT)
