"""The server of `event_stream.py`: two ways to stream the same events, steered by lines on standard input."""

import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from lib_events.database import Database, open_database
from lib_events.event import Event, EventType
from lib_events.event_log import SCHEMA
from lib_events.lifecycle import running
from lib_events.log.event_stream import EventStream
from lib_events.log.feed import Feed, Filter
from lib_events.nats.relay import Relay

TICKED = EventType("bench.ticked", dict[str, Any])
TEXT = "x" * 130  # an event of about 400 bytes


class Server:
    """Publishes events and streams them in both ways."""

    def __init__(self, database: Database, feed: Feed) -> None:
        self._database = database
        self._feed = feed
        self._queues: set[asyncio.Queue[Event]] = set()

    async def ours(self, _request: Request) -> Response:
        """Our stream."""
        return EventStream(self._feed, await self._feed.resolve(None), Filter(), authorised=_always)

    async def plain(self, _request: Request) -> Response:
        """Each client by itself."""
        return StreamingResponse(self._frames(), media_type="text/event-stream")

    async def _frames(self) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[Event] = asyncio.Queue()
        self._queues.add(queue)
        try:
            yield b"retry: 2000\n\n"
            while True:
                event = await queue.get()
                yield b"id: %s\nevent: %s\ndata: %s\n\n" % (event.id.encode(), event.type.encode(), event.to_json())
        finally:
            self._queues.discard(queue)

    async def publish(self, rate: float, seconds: float) -> dict[str, float]:
        """Publish so many events a second; returns the rate that was kept and the CPU, as part of a core."""
        began, busy = time.perf_counter(), _cpu_seconds()
        for number in range(round(rate * seconds)):
            data = {"number": number, "at": time.time(), "text": TEXT}
            event = Event.of(TICKED, data, source="/bench")
            await self._database.write(events=[event])
            for queue in self._queues:
                queue.put_nowait(event)
            await asyncio.sleep(max(0, began + (number + 1) / rate - time.perf_counter()))
        took = time.perf_counter() - began
        return {"rate": rate * seconds / took, "cpu": (_cpu_seconds() - busy) / took}


async def serve(port: int) -> None:
    """Serve until standard input ends."""
    folder = tempfile.mkdtemp(prefix="evs-benchmark-")
    database = await open_database(f"sqlite:///{folder}/events.db", service="bench", schemas=[SCHEMA])
    async with running(Relay(database, None), feed := Feed(database)):
        streams = Server(database, feed)
        app = Starlette(routes=[Route("/ours", streams.ours), Route("/plain", streams.plain)])
        config = uvicorn.Config(app, port=port, log_level="critical", access_log=False, lifespan="off", backlog=4096)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        await _obey(streams)
        server.should_exit = server.force_exit = True
        feed.close()
        await serving
    await database.close()


async def _obey(streams: Server) -> None:
    """Answer each line of standard input with one of JSON."""
    lines: asyncio.Queue[bytes] = asyncio.Queue()
    asyncio.get_running_loop().add_reader(0, lambda: lines.put_nowait(os.read(0, 4096)))
    _say(ready=True)
    while words := (await lines.get()).decode().split():
        if words[0] == "memory":
            _say(memory=int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
        else:
            _say(**await streams.publish(float(words[1]), float(words[2])))


def _say(**values: float) -> None:
    print(json.dumps(values), flush=True)


async def _always() -> bool:
    return True


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    uvloop.run(serve(int(sys.argv[1])))
