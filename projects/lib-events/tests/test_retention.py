"""The log forgets by age and by number, and never what somebody has yet to read."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
import pytest_asyncio
from pydantic import BaseModel
from sqlalchemy import func, insert, select, update

from lib_events.clock import SystemClock, to_datetime
from lib_events.database import EVENTS_TOPIC, open_database
from lib_events.event import Event, EventType
from lib_events.event_log import SCHEMA, Cursor, CursorRejected, append_writes, head, read_after
from lib_events.handling import consumer
from lib_events.handling.subscriptions import Subscriptions
from lib_events.lifecycle import running
from lib_events.log import retention as module
from lib_events.log.feed import Feed, FeedLagged, Filter
from lib_events.log.retention import Keep, Retention
from lib_events.nats.importer import _row as row_of
from lib_events.nats.relay import Relay
from lib_events.subscription import subscribe
from lib_events.tables import event_log_state, events, subscription_cursors
from lib_events.testing import FakeClock, wait_until


class Note(BaseModel):
    number: int


Noted = EventType("test.noted", Note)
Ticked = EventType("evs.test.ticked", Note, packed=True)
DAY = timedelta(days=1)


@pytest_asyncio.fixture
async def database(database_url):
    opened = await open_database(database_url, service="app-svc", schemas=[SCHEMA])
    async with running(Relay(opened, None)):
        yield opened
    await opened.close()


@pytest.fixture
def clock():
    return FakeClock(SystemClock().micros())


def noted(number, age=timedelta(), event_type=Noted):
    event = Event.of(event_type, Note(number=number), source="/app-svc")
    return replace(event, time=to_datetime(SystemClock().micros()) - age)


async def fill(database, new):
    await database.write(events=new)

    async def placed():
        return await database.read(lambda connection: head(connection).position) >= len(new)

    await wait_until(placed)


def pruning(database, clock, **options):
    return Retention(database, options.pop("keep", Keep()), clock=clock, is_published=False, **options)


async def kept(database):
    return [placed.event.data["number"] for placed in (await database.read(read_after, 0)).events]


async def test_events_go_when_they_are_old_enough(database, clock):
    await fill(database, [noted(number, 40 * DAY - number * DAY) for number in range(40)])
    assert await pruning(database, clock).prune() == 10
    assert await kept(database) == list(range(10, 40))
    clock.advance(5 * DAY)
    await pruning(database, clock).prune()
    assert await kept(database) == list(range(15, 40))


async def test_events_go_when_there_are_too_many(database, clock, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_ROWS", 7)
    keep = Keep(events=100_000)
    object.__setattr__(keep, "events", 10)  # so many that a test can write them
    await fill(database, [noted(number) for number in range(50)])
    assert await pruning(database, clock, keep=keep).prune() == 40
    assert await kept(database) == list(range(40, 50))


async def test_what_a_stream_may_bring_again_is_kept_however_much_there_is(database, clock, monkeypatch):
    monkeypatch.setattr(Keep, "__post_init__", lambda _: None)
    theirs = [
        row_of(event, event.to_json())
        for event in (noted(number, age=age * DAY) for number, age in enumerate((9, 7, 0)))
    ]
    await database.write(*theirs, topics=[EVENTS_TOPIC])
    await fill(database, [noted(number) for number in range(3, 10)])
    await wait_until(lambda: database.read(lambda connection: head(connection).position == 10))
    await pruning(database, clock, keep=Keep(events=2)).prune()
    assert await kept(database) == list(range(1, 10))


async def test_a_segment_goes_as_a_whole(database, clock):
    await fill(database, [noted(number, 40 * DAY, Ticked) for number in range(5)] + [noted(5)])
    await pruning(database, clock).prune()
    assert await kept(database) == [5]


@pytest.mark.parametrize("needs", ["subscription", "run", "broker"])
async def test_what_somebody_has_yet_to_read_is_kept(database, clock, needs, monkeypatch):
    monkeypatch.setattr(consumer, "DRAIN_SECONDS", 0.01)
    await fill(database, [noted(number, 40 * DAY) for number in range(20)])
    if needs == "subscription":

        @subscribe(Noted, durable="slow", attempts=1_000)
        async def slow(note: Note) -> None:
            if note.number == 12:
                await asyncio.Event().wait()

        async with running(Subscriptions(database, [slow])):
            query = select(subscription_cursors.c.position)
            await wait_until(lambda: database.read(lambda connection: connection.scalar(query) == 12))
            consumer_clock = FakeClock(SystemClock().micros())
            await pruning(database, consumer_clock).prune()
    elif needs == "run":
        await pruning(database, clock, needed=[lambda _connection: 12, lambda _connection: None]).prune()
    else:
        await database.transact(lambda c: c.execute(update(event_log_state).values(published_position=12)))
        await Retention(database, Keep(), clock=clock).prune()
    assert await kept(database) == list(range(12, 20))


async def test_a_subscription_whose_code_is_gone_holds_nothing_back(database, clock):
    await fill(database, [noted(number, 40 * DAY) for number in range(5)])
    abandoned = {"durable": "gone", "position": 0, "updated_at": clock.micros() - 31 * 86_400_000_000}
    await database.transact(lambda c: c.execute(subscription_cursors.insert().values(abandoned)))
    await pruning(database, clock).prune()
    assert await kept(database) == []


async def test_what_a_subscription_that_stands_still_has_yet_to_read_is_kept(database, clock):
    """For longer than events are kept nothing was for it; then it is busy with one for as long as it takes to prune."""
    await fill(database, [noted(number, 40 * DAY) for number in range(3)])
    begun = asyncio.Event()

    @subscribe(Noted, durable="still")
    async def still(_event: Event) -> None:
        begun.set()
        await asyncio.Event().wait()

    row = {"durable": "still", "position": 1, "updated_at": 0}
    await database.transact(lambda connection: connection.execute(insert(subscription_cursors).values(row)))
    async with running(subscriptions := Subscriptions(database, [still])):
        await begun.wait()

        async def told():
            return await database.read(lambda connection: connection.scalar(select(subscription_cursors.c.updated_at)))

        await wait_until(told)
        await pruning(database, clock).prune()
        assert await kept(database) == [1, 2]
        next(iter(subscriptions._consumers.values()))._task.cancel()


async def test_a_follower_is_told_when_what_it_has_yet_to_read_was_pruned(database, clock):
    """It went on behind the gap as if nothing had been there."""
    await fill(database, [noted(number, 40 * DAY) for number in range(10)])
    with Feed(database).follower(Cursor(1, 5), Filter()) as follower:
        await pruning(database, clock).prune()
        with pytest.raises(FeedLagged) as lagged:
            await follower.take(0)
    assert lagged.value.cursor == Cursor(1, 10)


async def test_a_time_from_the_future_does_not_keep_the_log_for_ever(database, clock):
    await fill(database, [noted(0, 40 * DAY), noted(1, -400 * DAY), noted(2, 40 * DAY), noted(3)])
    await pruning(database, clock).prune()
    assert await kept(database) == [3]


async def test_a_cursor_before_what_is_kept_is_refused(database, clock):
    await fill(database, [noted(number, 40 * DAY) for number in range(5)] + [noted(5)])
    await pruning(database, clock).prune()
    async with running(feed := Feed(database)):
        assert await feed.resolve("1.5") == Cursor(1, 5)
        with pytest.raises(CursorRejected, match="no longer kept") as raised:
            await feed.resolve("1.4")
    assert raised.value.reason == "pruned"


async def test_writing_goes_on_while_the_log_is_pruned(database, clock, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_ROWS", 20)
    await fill(database, [noted(number, 40 * DAY) for number in range(400)])

    async def write():
        for number in range(400, 500):
            await database.write(*append_writes([noted(number)]))

    await asyncio.gather(pruning(database, clock).prune(), write())
    count = await database.read(lambda c: c.scalar(select(func.count()).select_from(events)))
    assert count == 100


@pytest.mark.parametrize("options", [{"age": DAY}, {"events": 10}])
def test_too_little_to_keep_is_refused(options):
    with pytest.raises(ValueError, match="must be kept"):
        Keep(**options)
