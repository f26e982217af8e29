"""Server-sent events: resuming, heartbeats, and the ways a stream ends."""

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from pydantic import BaseModel
from starlette.requests import Request

from lib_events import event_stream
from lib_events import feed as feed_module
from lib_events.database import open_database
from lib_events.event import Event, EventType
from lib_events.event_log import SCHEMA, head
from lib_events.event_stream import sse_response
from lib_events.feed import Feed
from lib_events.lifecycle import running
from lib_events.problem import Problem
from lib_events.relay import Relay
from lib_events.testing import wait_until


class Note(BaseModel):
    number: int


Noted = EventType("test.noted", Note)


@pytest_asyncio.fixture
async def database(sqlite_url):
    opened = await open_database(sqlite_url, service="app-svc", schemas=[SCHEMA])
    async with running(Relay(opened, None)):
        yield opened
    await opened.close()


@pytest_asyncio.fixture
async def feed(database):
    found = Feed(database)
    async with running(found):
        yield found


def publish(database, number):
    return database.write(events=[Event.of(Noted, Note(number=number), source="/app-svc")])


def request(*, last_event_id=None, query=b""):
    headers = [(b"last-event-id", last_event_id.encode())] if last_event_id else []
    return Request({"type": "http", "method": "GET", "path": "/", "query_string": query, "headers": headers})


class Client:
    """The other side of one ASGI connection."""

    def __init__(self) -> None:
        self.status = None
        self.headers = {}
        self.text = ""
        self.ended = False
        self.gone = asyncio.Event()
        self.reading = asyncio.Event()
        self.reading.set()

    async def receive(self):
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        await self.reading.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            return
        self.text += message["body"].decode()
        self.ended = not message["more_body"]

    @property
    def frames(self):
        """(id, event, data) of each complete frame that is one."""
        frames = []
        for block in self.text.split("\n\n")[:-1]:
            fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
            if "event" in fields:
                frames.append((fields.get("id"), fields["event"], json.loads(fields["data"])))
        return frames

    async def until(self, count):
        await wait_until(lambda: len(self.frames) >= count)
        return self.frames


@asynccontextmanager
async def streaming(feed, sent=None, **options):
    client = Client()
    response = await sse_response(sent or request(), feed, **options)
    serving = asyncio.create_task(response({"type": "http"}, client.receive, client.send))
    await wait_until(lambda: "retry" in client.text)
    try:
        yield client, serving
    finally:
        client.gone.set()
        await asyncio.wait_for(serving, 5)


async def test_events_arrive_with_their_cursor_and_type(database, feed):
    async with streaming(feed) as (client, _):
        await publish(database, 1)
        ((cursor, event, data),) = await client.until(1)
    assert (cursor, event, data["data"]) == ("1.1", "test.noted", {"number": 1})
    assert client.headers["content-type"].startswith("text/event-stream")
    assert client.headers["cache-control"] == "no-store"
    assert "content-length" not in client.headers


@pytest.mark.parametrize("sent", [{"last_event_id": "1.2"}, {"query": b"after=1.2"}])
async def test_a_stream_resumes_after_the_last_event(database, feed, sent):
    for number in range(1, 5):
        await publish(database, number)
    await wait_until(lambda: database.read(lambda connection: head(connection).position == 4))
    async with streaming(feed, request(**sent)) as (client, _):
        assert [cursor for cursor, _, _ in await client.until(2)] == ["1.3", "1.4"]


@pytest.mark.parametrize(("cursor", "status"), [("x", 400), ("1.99", 400), ("9.1", 410)])
async def test_a_cursor_that_cannot_be_resumed_is_a_problem(feed, cursor, status):
    with pytest.raises(Problem) as raised:
        await sse_response(request(last_event_id=cursor), feed)
    assert raised.value.status == status


async def test_a_quiet_stream_has_a_heartbeat(feed, monkeypatch):
    monkeypatch.setattr(event_stream, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(event_stream, "CHECK_SECONDS", 0.02)
    async with streaming(feed) as (client, _):
        await wait_until(lambda: client.text.count(": heartbeat") >= 2)


async def test_a_stream_ends_with_its_token(feed):
    async with streaming(feed, expires_at=datetime.now(UTC) + timedelta(seconds=0.2)) as (client, serving):
        await asyncio.wait_for(serving, 5)
    assert client.frames[-1][1:] == ("end", {"reason": "expired"})
    assert client.ended


async def test_a_stream_ends_when_it_is_closed(feed):
    revoked = []
    async with streaming(feed, closed=lambda: bool(revoked)) as (client, serving):
        revoked.append("session")
        await asyncio.wait_for(serving, 5)
    assert client.frames[-1][1:] == ("end", {"reason": "closed"})


async def test_a_stream_ends_at_once_when_the_service_stops(feed):
    async with streaming(feed) as (client, serving):
        feed.close()
        await asyncio.wait_for(serving, 0.5)
    assert client.frames[-1][1:] == ("end", {"reason": "stopping"})


async def test_a_client_that_goes_frees_its_place_at_once(feed):
    async with streaming(feed) as (client, serving):
        await wait_until(lambda: len(feed._followers) == 1)
        client.gone.set()
        await asyncio.wait_for(serving, 0.5)
    assert not feed._followers


async def test_a_client_that_reads_nothing_is_dropped(database, feed, monkeypatch):
    monkeypatch.setattr(event_stream, "SEND_SECONDS", 0.1)
    async with streaming(feed) as (client, serving):
        client.reading.clear()
        await publish(database, 1)
        await asyncio.wait_for(serving, 5)


async def test_a_client_too_far_behind_is_told_to_resync_and_goes_on(database, feed, monkeypatch):
    monkeypatch.setattr(feed_module, "QUEUE_LIMIT", 5)
    monkeypatch.setattr(feed_module, "LAG_LIMIT", 10)
    async with streaming(feed) as (client, _):
        await wait_until(lambda: len(feed._followers) == 1)
        client.reading.clear()
        await publish(database, 0)
        await wait_until(lambda: database.read(lambda connection: head(connection).position == 1))
        await asyncio.gather(*(publish(database, number) for number in range(1, 50)))
        await wait_until(lambda: not feed._followers)
        await wait_until(lambda: database.read(lambda connection: head(connection).position == 50))
        client.reading.set()
        await wait_until(lambda: "event: resync" in client.text)
        await publish(database, 50)
        await wait_until(lambda: client.frames[-1][0] == "1.51")
        cursor, _, data = next(frame for frame in client.frames if frame[1] == "resync")
        assert (cursor, data) == ("1.50", {"after": "1.50"})
