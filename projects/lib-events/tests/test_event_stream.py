"""Server-sent events: resuming, heartbeats, and the ways a stream ends."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest_asyncio
from pydantic import BaseModel

from lib_events.database import open_database
from lib_events.event import Event, EventType
from lib_events.event_log import SCHEMA, head
from lib_events.lifecycle import running
from lib_events.log import event_stream
from lib_events.log import feed as feed_module
from lib_events.log.event_stream import EventStream
from lib_events.log.feed import Feed, Filter
from lib_events.nats.relay import Relay
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


async def always():
    return True


EVERYTHING = Filter()


@asynccontextmanager
async def streaming(feed, after=None, *, wanted=EVERYTHING, authorised=always, unlogged=None):
    client = Client()
    response = EventStream(feed, await feed.resolve(after), wanted, authorised=authorised, unlogged=unlogged)
    serving = asyncio.create_task(response({"type": "http"}, client.receive, client.send))
    await wait_until(lambda: "retry" in client.text)
    try:
        yield client, serving
    finally:
        client.gone.set()
        await asyncio.wait_for(serving, 30)


async def test_events_arrive_with_their_cursor_and_type(database, feed):
    async with streaming(feed) as (client, _):
        await publish(database, 1)
        ((cursor, event, data),) = await client.until(1)
    assert (cursor, event, data["data"]) == ("1.1", "test.noted", {"number": 1})
    assert client.headers["content-type"].startswith("text/event-stream")
    assert client.headers["cache-control"] == "no-store"
    assert "content-length" not in client.headers


async def test_a_stream_resumes_after_the_last_event(database, feed):
    for number in range(1, 5):
        await publish(database, number)
    await wait_until(lambda: database.read(lambda connection: head(connection).position == 4))
    async with streaming(feed, "1.2") as (client, _):
        assert [cursor for cursor, _, _ in await client.until(2)] == ["1.3", "1.4"]


async def test_clients_with_the_same_filter_share_one_encoding(database, feed):
    odd = Filter(allowed=lambda event: event.data["number"] % 2 == 1)
    async with (
        streaming(feed, wanted=odd) as (first, _),
        streaming(feed, wanted=odd) as (second, _),
        streaming(feed) as (third, _),
    ):
        await wait_until(lambda: len(feed._followers) == 3)
        await asyncio.gather(*(publish(database, number) for number in range(1, 5)))
        assert [data["data"]["number"] for _, _, data in await third.until(4)] == [1, 2, 3, 4]
        assert [data["data"]["number"] for _, _, data in await first.until(2)] == [1, 3]
        assert await second.until(2) == first.frames


async def test_what_is_in_no_log_is_told_without_an_id(feed):
    told = []

    def unlogged(hear):
        told.append(hear)
        return told.clear

    async with streaming(feed, unlogged=unlogged) as (client, _):
        told[0](Event.of(Noted, Note(number=7), source="/app-svc"))
        ((cursor, kind, data),) = await client.until(1)
    assert (cursor, kind, data["data"]) == (None, "test.noted", {"number": 7})
    assert not told


async def test_a_quiet_stream_has_a_heartbeat(feed, monkeypatch):
    monkeypatch.setattr(event_stream, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(event_stream, "CHECK_SECONDS", 0.02)
    async with streaming(feed) as (client, _):
        await wait_until(lambda: client.text.count(": heartbeat") >= 2)


async def test_a_stream_ends_with_what_authorised_it(feed, monkeypatch):
    monkeypatch.setattr(event_stream, "CHECK_SECONDS", 0.02)
    good = [True]

    async def authorised():
        return bool(good)

    async with streaming(feed, authorised=authorised) as (client, serving):
        good.clear()
        await asyncio.wait_for(serving, 30)
    assert client.ended


async def test_a_stream_ends_at_once_when_the_service_stops(feed, monkeypatch):
    monkeypatch.setattr(event_stream, "CHECK_SECONDS", 600.0)  # nobody looks: it is told
    async with streaming(feed) as (client, serving):
        feed.close()
        await asyncio.wait_for(serving, 30)
    assert client.ended


async def test_a_client_that_goes_frees_its_place_at_once(feed, monkeypatch):
    monkeypatch.setattr(event_stream, "CHECK_SECONDS", 600.0)
    async with streaming(feed) as (client, serving):
        await wait_until(lambda: len(feed._followers) == 1)
        client.gone.set()
        await asyncio.wait_for(serving, 30)
    assert not feed._followers


async def test_a_client_that_reads_nothing_is_dropped(database, feed, monkeypatch):
    monkeypatch.setattr(event_stream, "SEND_SECONDS", 0.1)
    async with streaming(feed) as (client, serving):
        client.reading.clear()
        await publish(database, 1)
        await asyncio.wait_for(serving, 30)


async def test_a_client_too_far_behind_is_told_so_and_comes_back_at_the_end(database, feed, monkeypatch):
    monkeypatch.setattr(feed_module, "QUEUE_LIMIT", 5)
    monkeypatch.setattr(feed_module, "LAG_LIMIT", 10)
    async with streaming(feed) as (client, serving):
        await wait_until(lambda: len(feed._followers) == 1)
        client.reading.clear()
        await publish(database, 0)
        await wait_until(lambda: database.read(lambda connection: head(connection).position == 1))
        await asyncio.gather(*(publish(database, number) for number in range(1, 50)))
        await wait_until(lambda: not feed._followers)
        await wait_until(lambda: database.read(lambda connection: head(connection).position == 50))
        client.reading.set()
        await asyncio.wait_for(serving, 30)
    cursor, kind, data = client.frames[-1]
    assert (cursor, kind, data) == ("1.50", "evs.feed.lagged", {"after": "1.50"})
    assert client.ended
