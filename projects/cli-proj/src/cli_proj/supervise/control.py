"""The supervisor's ear: a Unix socket in DATA through which `evs status` and `evs down` speak to it."""

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from cli_proj.exit_codes import ExitCode
from cli_proj.failure import CommandFailed
from cli_proj.supervise.data_lock import LOCK

SOCKET = "up.sock"
LONGEST_PATH = 100  # sun_path holds 108 bytes on Linux, 104 on macOS
ANSWER_SECONDS = 10.0
GOODBYE_SECONDS = 1.0

type Request = Literal["status", "down"]
type Answer = dict[str, Any]
type Handler = Callable[[Request], Awaitable[Answer]]


class NobodyListens(Exception):
    """No supervisor answers on that data folder."""


class Control:
    """Listens on DATA/up.sock; only the owner of DATA can reach it."""

    def __init__(self, data: Path, handle: Handler) -> None:
        self._path = data / SOCKET
        self._handle = handle
        self._server: asyncio.Server | None = None
        self._aside: Path | None = None  # the folder of the socket when DATA's path is too long for one

    async def start(self) -> None:
        """Begin to listen, in place of whatever a killed supervisor left."""
        self._path.unlink(missing_ok=True)
        place = self._path
        if len(os.fsencode(place)) > LONGEST_PATH:
            self._aside = Path(tempfile.mkdtemp(prefix="evs-"))  # made 0700
            place = self._aside / SOCKET
        before = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._serve, path=place)
        finally:
            os.umask(before)
        if self._aside is not None:
            self._path.symlink_to(place)

    async def stop(self) -> None:
        """Stop listening; whoever waits for an answer sees the end."""
        if self._server is not None:
            self._server.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_SECONDS):
                    await self._server.wait_closed()
            self._server.close_clients()
            self._server = None
        self._path.unlink(missing_ok=True)
        if self._aside is not None:
            shutil.rmtree(self._aside, ignore_errors=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                request = json.loads(await reader.readline())["request"]
            writer.write(json.dumps(await self._handle(request)).encode() + b"\n")
            await writer.drain()
        except (OSError, ValueError, KeyError, TypeError, TimeoutError):
            pass  # not one of ours, or gone: nobody is waiting for words
        finally:
            writer.close()


async def ask(data: Path, request: Request, *, timeout: float = ANSWER_SECONDS) -> Answer:  # noqa: ASYNC109 - a bound
    """Return the supervisor's answer; raises `NobodyListens`, and `CommandFailed` for one that is there and silent."""
    path = data / SOCKET
    if path.is_symlink():
        path = path.readlink()
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(json.dumps({"request": request}).encode() + b"\n")
                answer: Answer = json.loads(await reader.readline())
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
    except TimeoutError as error:
        text = f"the supervisor of {data} has not answered within {timeout:g} s"
        raise CommandFailed(text, hint=f"its process is in {data / LOCK}", code=ExitCode.TIMEOUT) from error
    except (OSError, ValueError) as error:
        raise NobodyListens(str(data)) from error
    return answer


async def ask_status(data: Path) -> Answer | None:
    """Return the supervisor's status; None when nobody answers."""
    try:
        return await ask(data, "status")
    except NobodyListens:
        return None
