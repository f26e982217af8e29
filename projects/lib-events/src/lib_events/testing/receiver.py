"""A webhook receiver for tests: a real HTTP server on loopback that answers, or misbehaves, as it is told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from lib_events.event import Event


@dataclass(frozen=True, slots=True)
class Received:
    """A request that came in, whole."""

    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def event(self) -> Event:
        """The event in it."""
        return Event.from_json(self.body)


type Answer = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]


def status(code: int, **headers: str) -> Answer:
    """Answer with a status and no body."""

    async def answer(_received: Received, writer: asyncio.StreamWriter) -> None:
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([f"HTTP/1.1 {code} Told", "content-length: 0", *lines, "", ""]).encode("latin-1"))
        await writer.drain()

    return answer


class Receiver:
    """Counts as received what came whole; `answer` may be replaced at any time."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answer: Answer = status(204)
        self.connections = 0
        self.url = ""

    @property
    def event_ids(self) -> list[str]:
        """The ids of the events that came in, in order."""
        return [received.event.id for received in self.received]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while not writer.is_closing():
                received = await _read(reader)
                self.received.append(received)
                await self.answer(received, writer)
        writer.close()


@asynccontextmanager
async def receiving(port: int = 0) -> AsyncIterator[Receiver]:
    """Receive on loopback inside the block."""
    receiver = Receiver()
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(receiver.serve(reader, writer))
        connections.add(task)
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    try:
        yield receiver
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    request_line, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(request_line.split(" ")[1], headers, body)
