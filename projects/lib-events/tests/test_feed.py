"""The feed: everybody gets everything once and in order, from any cursor, however slow."""

import asyncio
from contextlib import aclosing, asynccontextmanager

import pytest
import pytest_asyncio
from pydantic import BaseModel

from lib_events.database import open_database
from lib_events.event import Event, EventType
from lib_events.event_log import SCHEMA, Cursor, CursorRejected, head
from lib_events.lifecycle import running
from lib_events.log import feed as module
from lib_events.log.feed import Feed, FeedClosed, FeedLagged, Filter
from lib_events.nats.relay import Relay
from lib_events.testing import wait_until


class Note(BaseModel):
    number: int


Noted = EventType("test.noted", Note)
Ticked = EventType("evs.test.ticked", Note, packed=True)
BEGINNING = Cursor(1, 0)


@pytest_asyncio.fixture
async def database(database_url):
    opened = await open_database(database_url, service="app-svc", schemas=[SCHEMA])
    async with running(Relay(opened, None)):
        yield opened
    await opened.close()


@asynccontextmanager
async def feeding(database):
    feed = Feed(database)
    async with running(feed):
        yield feed


def noted(number, event_type=Noted, subject=None):
    return Event.of(event_type, Note(number=number), source="/app-svc", subject=subject)


async def publish(database, numbers):
    await asyncio.gather(*(database.write(events=[noted(number)]) for number in numbers))


async def placed(database, position):
    await wait_until(lambda: database.read(lambda connection: head(connection).position >= position))


async def collect(feed, count, cursor=None, **wanted):
    found = []
    async with asyncio.timeout(10), aclosing(feed.follow(cursor, **wanted)) as events:
        async for position, event in events:
            found.append((position, event.data["number"]))
            if len(found) == count:
                return found
    return found


async def joined(feed, count=1):
    await wait_until(lambda: len(feed._followers) == count)


async def test_followers_from_the_beginning_the_middle_and_now_see_one_order(database):
    async with feeding(database) as feed:
        await publish(database, range(1500))
        await placed(database, 1500)
        live = asyncio.create_task(collect(feed, 500))
        await joined(feed)
        old = asyncio.create_task(collect(feed, 2000, BEGINNING))
        middle = asyncio.create_task(collect(feed, 1000, Cursor(1, 1000)))
        for start in range(1500, 2000, 50):
            await publish(database, range(start, start + 50))
        everything = [(Cursor(1, number + 1), number) for number in range(2000)]
        assert await old == everything
        assert await middle == everything[1000:]
        assert await live == everything[1500:]


async def test_a_cursor_inside_a_segment_goes_on_inside_it(database):
    await database.write(events=[noted(number, Ticked) for number in range(10)])
    await placed(database, 10)
    async with feeding(database) as feed:
        assert await collect(feed, 6, Cursor(1, 4)) == [(Cursor(1, number + 1), number) for number in range(4, 10)]


@pytest.mark.parametrize("live", [False, True])
async def test_a_follower_sees_what_it_asks_for_and_may_see(database, live):
    def write():
        events = [noted(1, subject="a"), noted(2, subject="b"), noted(3, Ticked, "a"), noted(4, subject="a")]
        return database.write(events=events)

    async with feeding(database) as feed:
        if not live:
            await write()
            await placed(database, 4)
        followers = [
            asyncio.create_task(collect(feed, 1, BEGINNING, types=["evs.*"])),
            asyncio.create_task(collect(feed, 3, BEGINNING, subject="a")),
            asyncio.create_task(collect(feed, 2, BEGINNING, allowed=lambda event: event.data["number"] % 2 == 0)),
        ]
        if live:
            await joined(feed, 3)
            await write()
        numbers = [sorted(number for _, number in found) for found in await asyncio.gather(*followers)]
    assert numbers == [[3], [1, 3, 4], [2, 4]]


async def test_an_event_is_encoded_once_for_all_followers(database):
    async with feeding(database) as feed:
        start = await feed.resolve(None)
        with feed.follower(start, Filter()) as one, feed.follower(start, Filter(types=("test.*",))) as two:
            assert await one.take(0.1) == await two.take(0.1) == []
            await publish(database, [1])
            (first,), (second,) = await asyncio.gather(entries(one), entries(two))
            assert first is second
            assert first.frame is second.frame
            assert first.frame.startswith(b"id: 1.1\nevent: test.noted\ndata: {")


async def entries(follower):
    return [entry for selection in await follower.take(5) for entry in selection.entries]


async def test_a_slow_follower_reads_on_from_the_log_and_misses_nothing(database, monkeypatch):
    monkeypatch.setattr(module, "QUEUE_LIMIT", 10)
    async with feeding(database) as feed:
        with feed.follower(await feed.resolve(None), Filter()) as slow:
            assert await slow.take(0.1) == []
            await publish(database, range(100))
            await wait_until(lambda: not feed._followers)
            found = []
            while len(found) < 100:
                found += await entries(slow)
            await slow.take(0.01)
            await publish(database, [100])
            while len(found) < 101:
                found += await entries(slow)
    assert [entry.cursor.position for entry in found] == list(range(1, 102))


async def test_a_follower_that_cannot_keep_up_is_told_where_to_begin_again(database, monkeypatch):
    monkeypatch.setattr(module, "QUEUE_LIMIT", 10)
    monkeypatch.setattr(module, "LAG_LIMIT", 50)
    async with feeding(database) as feed:
        with feed.follower(await feed.resolve(None), Filter()) as slow:
            assert await slow.take(0.1) == []
            await publish(database, range(100))
            await placed(database, 100)
            await wait_until(lambda: not feed._followers)
            with pytest.raises(FeedLagged) as raised:
                await slow.take(5)
            assert raised.value.cursor == Cursor(1, 100)
            await publish(database, [100])
            found = []
            while not found:
                found = await entries(slow)
            assert found[0].cursor == Cursor(1, 101)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("nonsense", "malformed"), ("1.-1", "malformed"), ("2.0", "other_epoch"), ("1.999", "future")],
)
async def test_a_cursor_that_cannot_be_resumed_says_why(database, text, reason):
    async with feeding(database) as feed:
        with pytest.raises(CursorRejected) as raised:
            await feed.resolve(text)
    assert raised.value.reason == reason


async def test_closing_ends_every_follower(database):
    async with feeding(database) as feed:
        following = asyncio.create_task(collect(feed, 1))
        await joined(feed)
        feed.close()
        with pytest.raises(FeedClosed):
            await asyncio.wait_for(following, 5)


async def test_who_comes_first_while_the_feed_reads_for_one_who_has_gone_misses_nothing(database, monkeypatch):
    """What was read for the other was given to whoever came, who stood before it, and went on behind it."""
    reading, go_on, read_page = asyncio.Event(), asyncio.Event(), module.read_page

    async def slowly(*arguments, **options):
        page = await read_page(*arguments, **options)
        if page.position == 20 and not go_on.is_set():
            reading.set()
            await go_on.wait()
        return page

    await publish(database, range(10))
    await placed(database, 10)
    async with feeding(database) as feed:
        with feed.follower(Cursor(1, 10), Filter()) as first:
            await first.take(0)
            await joined(feed)
            monkeypatch.setattr(module, "read_page", slowly)
            await publish(database, range(10, 20))
            await reading.wait()
        monkeypatch.setattr(module, "read_page", _only_five(read_page))
        with feed.follower(BEGINNING, Filter()) as second:
            found = await entries(second)
            go_on.set()
            monkeypatch.setattr(module, "read_page", read_page)
            async with asyncio.timeout(10):
                while len(found) < 20:
                    found += await entries(second)
    assert [entry.event.data["number"] for entry in found] == list(range(20))


def _only_five(read_page):
    async def read(*arguments, **options):
        return await read_page(*arguments, **options | {"limit": 5})

    return read


async def test_a_follower_that_is_slow_with_large_events_holds_few_of_them(database, monkeypatch):
    monkeypatch.setattr(module, "QUEUE_BYTES", 50_000)
    large = EventType("test.large", str)
    async with feeding(database) as feed:
        with feed.follower(await feed.resolve(None), Filter()) as follower:
            await follower.take(0)
            await joined(feed)
            for _ in range(10):
                await database.write(events=[Event.of(large, "x" * 10_000, source="/app-svc")])
            await joined(feed, 0)
            assert not follower._stretches
            found = []
            while len(found) < 10:
                found += await entries(follower)


async def test_followers_come_and_go_without_a_gap(database):
    async with feeding(database) as feed:
        position = 0
        writing = asyncio.create_task(publish_slowly(database, 300))
        while position < 300:
            for cursor, number in await collect(feed, 7 if position < 290 else 1, Cursor(1, position)):
                assert cursor.position == position + 1 == number + 1
                position = cursor.position
        await writing
        assert not feed._followers


async def publish_slowly(database, count):
    for number in range(count):
        await database.write(events=[noted(number)])


@pytest.mark.postgresql
async def test_events_of_another_process_arrive_at_once(postgresql_url):
    first, second = [await open_database(postgresql_url, service="app-svc", schemas=[SCHEMA]) for _ in range(2)]
    async with running(Relay(first, None)), feeding(second) as feed:
        following = asyncio.create_task(collect(feed, 20))
        await joined(feed)
        for number in range(20):
            await first.write(events=[noted(number)])
        assert [number for _, number in await following] == list(range(20))
    await first.close()
    await second.close()
