"""Asks one service whether it is ready; without an HTTP library, because the supervisor outlives everything."""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

ANSWER_SECONDS = 3.0


class Probe(Protocol):
    """A question with two answers: ready, or why not."""

    async def ask(self) -> str | None:
        """Return None when ready, else the reason in a few words."""
        ...

    def forget(self) -> None:
        """Drop what an earlier life of the service left behind."""
        ...


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """`GET /readyz` of a service."""

    url: str

    async def ask(self) -> str | None:
        """See `Probe`."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                status, body = await _get(self.url, "/readyz")
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            return "it does not answer"
        return why_not_ready(status, body)

    def forget(self) -> None:
        """See `Probe`: HTTP leaves nothing."""


@dataclass(frozen=True, slots=True)
class FileProbe:
    """A file that the service writes when it is ready."""

    path: Path

    async def ask(self) -> str | None:
        """See `Probe`."""
        return None if self.path.exists() else "it has not said so"

    def forget(self) -> None:
        """See `Probe`."""
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class AliveProbe:
    """For a process that serves nobody: it is ready when it runs."""

    async def ask(self) -> str | None:
        """See `Probe`."""
        return None

    def forget(self) -> None:
        """See `Probe`."""


async def _get(url: str, path: str) -> tuple[int, bytes]:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
    try:
        host = parts.netloc
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), await reader.read(65_536)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def why_not_ready(status: int, body: bytes) -> str | None:
    """Read an answer of `/readyz`: None when it says ready, else the reason in a few words."""
    return None if status == 200 else _reason(body) or f"/readyz answers {status}"


def _reason(body: bytes) -> str | None:
    """Name the checks that are not ok in the answer of `/readyz`."""
    with suppress(ValueError, AttributeError):
        checks: dict[str, Any] = json.loads(body)["checks"]
        return ", ".join(f"{name}: {answer}" for name, answer in checks.items() if answer != "ok") or None
    return None
