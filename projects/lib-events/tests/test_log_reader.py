"""Reading on in the log: whatever happens to the commits, the tail in memory says what the table says."""

import asyncio
import contextlib
import random
from datetime import timedelta

import pytest
import pytest_asyncio
from pydantic import BaseModel
from sqlalchemy import insert

from lib_events.clock import SystemClock, to_datetime
from lib_events.database import EVENTS_TOPIC, CommitFailed, Connection, open_database
from lib_events.event import Event, EventType
from lib_events.event_filter import Wanted
from lib_events.event_log import (
    IMPORT_EVENTS,
    PLACED_TOPIC,
    SCHEMA,
    Cursor,
    append_writes,
    head,
    imported_row,
    place,
    read_after,
    rows_after,
)
from lib_events.handling.subscriptions import Subscriptions
from lib_events.http.cloudevents import read_events
from lib_events.lifecycle import running
from lib_events.log.feed import Feed
from lib_events.log.reader import read_page, read_rows
from lib_events.log.retention import Keep, Retention
from lib_events.nats.broker import StreamState
from lib_events.nats.relay import Relay, align
from lib_events.statement import Write
from lib_events.subscription import subscribe
from lib_events.tables import events
from lib_events.tail import Tail
from lib_events.testing import FakeClock, wait_until

ROUNDS = 150
WANTED = (
    Wanted(),
    Wanted(own_only=True),
    Wanted(types=("test.noted",)),
    Wanted(types=("evs.*", "test.other")),
    Wanted(types=("nothing.*",)),
    Wanted(subject="3"),
    Wanted(types=("test.*",), correlation="even"),
)


class Note(BaseModel):
    number: int


Noted = EventType("test.noted", Note)
Othered = EventType("test.other", Note)
Ticked = EventType("evs.test.ticked", Note, packed=True)


def noted(number, *, event_type=Noted, source="/app-svc", **attributes):
    event = Event.of(event_type, Note(number=number), source=source, subject=str(number % 5), **attributes)
    event.extensions["correlationid"] = "odd" if number % 2 else "even"
    return event


def imports(number):
    (write,) = append_writes([noted(number, source="/auth-svc", id=f"imported-{number}")])
    row = dict(zip((name for name, _ in IMPORT_EVENTS.columns), write.row, strict=True)) | {"imported": True}
    return Write(IMPORT_EVENTS, tuple(row.values()))


@pytest_asyncio.fixture
async def database(database_url):
    opened = await open_database(database_url, service="app-svc", schemas=[SCHEMA])
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def sqlite(sqlite_url):
    opened = await open_database(sqlite_url, service="app-svc", schemas=[SCHEMA])
    yield opened
    await opened.close()


async def end_of(database):
    return (await database.read(head)).position


async def assert_the_tail_says_what_the_table_says(database):
    """From every position on: whatever is wanted."""
    for position in range(await end_of(database) + 1):
        if database.tail.after(position, limit=1) is None:
            continue
        for wanted in WANTED:
            found = await read_page(database, position, wanted, limit=10_000)
            assert found == await database.read(_page, position, wanted)
            rows = await read_rows(database, position, wanted, limit=7, bytes_limit=1_000_000)
            stored = await database.read(lambda c, p=position, w=wanted: rows_after(c, p, w, limit=10_000).found)
            assert [row.body for row in rows.found] == [row.body for row in stored][: len(rows.found)]
            assert all(row.last_position > rows.position for row in stored[len(rows.found) :])


def _page(connection, position, wanted):
    return read_after(
        connection,
        position,
        types=wanted.types,
        subject=wanted.subject,
        correlation=wanted.correlation,
        own_only=wanted.own_only,
        limit=10_000,
    )


class Chaos:
    """Things that may be in a group of commits, by chance."""

    def __init__(self, database, seed):
        self._database = database
        self._choose = random.Random(seed)
        self._number = 0

    def begin(self):
        """Begin one of them; returns what to wait for."""
        self._number += 1
        number = self._number
        kinds = (self._write, self._packed, self._function, self._fail, self._import, self._odd, self._place)
        return self._choose.choice(kinds)(number)

    def _write(self, number):
        return self._database.write(events=[noted(number), noted(number, event_type=Othered)])

    def _packed(self, number):
        return self._database.write(events=[noted(number, event_type=Ticked) for _ in range(number % 4 + 1)])

    def _function(self, number):
        def publish(connection):
            connection.publish(noted(number), noted(number, event_type=Ticked))
            if number % 7 == 0:
                connection.write(imports(number % 10))

        return self._database.transact(publish)

    def _fail(self, number):
        def fail(connection):
            connection.publish(noted(number))
            raise ValueError(number)

        return self._database.transact(fail)

    def _import(self, number):
        return self._database.write(imports(number), imports(number % 10), topics=[EVENTS_TOPIC])

    def _odd(self, number):
        twice = noted(number)
        if number % 3 == 0:
            return self._database.write(events=[twice, twice])  # breaks a constraint

        def insert_without_position(connection):
            connection.execute(insert(events), imported_row(twice))
            if number % 3 == 1:
                connection.notify(EVENTS_TOPIC)

        return self._database.transact(insert_without_position)

    def _place(self, _number):
        return self._database.transact(place)


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_was_in_a_commit_the_tail_says_what_the_table_says(database, seed):
    choose, chaos = random.Random(seed), Chaos(database, seed)
    for _ in range(ROUNDS):
        await asyncio.gather(*(chaos.begin() for _ in range(choose.randint(1, 6))), return_exceptions=True)
        if choose.random() < 0.1:
            await assert_the_tail_says_what_the_table_says(database)
    await database.transact(place)
    await assert_the_tail_says_what_the_table_says(database)
    assert await end_of(database) > ROUNDS


async def test_who_gives_positions_within_a_commit_goes_on_where_the_commit_is(database):
    """An imported event that was there already keeps those that came with it without positions for a while."""
    await database.write(imports(1))
    begun = [
        database.write(imports(1), imports(2), topics=[EVENTS_TOPIC]),
        database.write(events=[noted(number, event_type=Ticked) for number in range(4)]),
        asyncio.ensure_future(database.transact(place)),
    ]
    await asyncio.gather(*begun)
    while await database.transact(place):
        pass
    placed = (await database.read(_page, 0, Wanted())).events
    assert sorted(placed.position for placed in placed) == [1, 2, 3, 4, 5, 6]
    await assert_the_tail_says_what_the_table_says(database)


async def test_on_sqlite_what_is_committed_is_in_memory_and_on_postgresql_it_is_read(database):
    await database.write(events=[noted(1), noted(2)])
    await database.transact(lambda connection: connection.publish(noted(3)))
    while await database.transact(place):
        pass
    expected = 3 if database.dialect_name == "sqlite" else 0
    assert database.tail.end == expected
    page = await read_page(database, 1, Wanted(), limit=10)
    assert [placed.event.data["number"] for placed in page.events] == [2, 3]
    assert (page.position, page.head.position) == (3, 3)


async def test_nothing_is_handed_over_before_it_is_on_disk(sqlite):
    asked = []
    commit = sqlite._disk.submit

    def look_first(function, *arguments):
        asked.append(sqlite.tail.end)
        return commit(function, *arguments)

    sqlite._disk.submit = look_first
    for number in range(3):
        await sqlite.write(events=[noted(number)])
    assert asked == [0, 1, 2]


async def test_a_commit_that_fails_is_not_handed_over(sqlite):
    await sqlite.write(events=[noted(1)])
    pages = sqlite._raw.execute("PRAGMA page_count").fetchone()[0]
    sqlite._raw.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(CommitFailed):
        await sqlite.write(events=[noted(number) for number in range(2, 200)])
    assert (sqlite.tail.end, await end_of(sqlite)) == (1, 1)
    sqlite._raw.execute("PRAGMA max_page_count = 1000000")
    await sqlite.write(events=[noted(2)])
    await assert_the_tail_says_what_the_table_says(sqlite)
    assert sqlite.tail.end == 2


async def test_after_a_restart_the_table_is_read_until_something_is_committed(sqlite_url):
    for life in range(3):
        database = await open_database(sqlite_url, service="app-svc", schemas=[SCHEMA])
        assert database.tail.after(life, limit=1) is None
        page = await read_page(database, 0, Wanted(), limit=10)
        assert [placed.event.data["number"] for placed in page.events] == list(range(life))
        await database.write(events=[noted(life)])
        page = await read_page(database, 0, Wanted(), limit=10)
        assert [placed.event.data["number"] for placed in page.events] == list(range(life + 1))
        await database.close()


async def test_a_new_epoch_and_pruning_leave_nothing_of_the_old_log_in_memory(sqlite):
    clock = FakeClock(SystemClock().micros())
    old = to_datetime(clock.micros() - timedelta(days=40) // timedelta(microseconds=1))
    await sqlite.write(events=[noted(1, time=old), noted(2)])
    await sqlite.transact(align, StreamState(last_sequence=9, last_message_id="1.9"))
    assert (await read_page(sqlite, 0, Wanted(), limit=10)).head.epoch == 2
    await sqlite.write(events=[noted(3)])
    assert (sqlite.tail.epoch, sqlite.tail.end) == (2, 3)
    assert await Retention(sqlite, Keep(), is_published=False, clock=clock).prune() == 1
    page = await read_page(sqlite, 0, Wanted(), limit=10)
    assert [placed.event.data["number"] for placed in page.events] == [2, 3]


@pytest.mark.parametrize("sizes", [[200_000] * 60, [100] * 200 + [200_000] * 60])
async def test_large_events_are_read_a_few_at_a_time(database, sizes):
    """A thousand of four megabytes each are more than a process has, and so it was again after each restart."""
    large, most = EventType("test.large", str), 0
    for start in range(0, len(sizes), 50):
        new = [Event.of(large, "x" * size, source="/app-svc") for size in sizes[start : start + 50]]
        await database.write(events=new)
        await database.transact(place)
    database.tail.clear()

    def read(connection, position):
        nonlocal most
        rows = connection.rows

        def counted(*arguments, **options):
            nonlocal most
            found = rows(*arguments, **options)
            most = max(most, sum(len(getattr(row, "body", b"")) for row in found))
            return found

        connection.rows = counted
        return rows_after(connection, position, Wanted(), limit=1_000, bytes_limit=1_000_000)

    position, found = 0, 0
    while found < len(sizes):
        some = await database.read(read, position)
        position, found = some.position, found + len(some.found)
    assert (position, found) == (len(sizes), len(sizes))
    assert most <= 32 * 200_500


async def test_an_event_as_deep_as_it_may_be_sent_to_us_is_read_again(database):
    """It lies a level deeper in the log than on the wire, and nothing behind it was read by anybody."""
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/x", "ce-type": "test.deep"}
    (deep,) = read_events(headers | {"content-type": "application/json"}, b"[" * 201 + b"]" * 201)
    await database.write(events=[deep])
    await database.transact(place)
    page = await read_page(database, 0, Wanted(), limit=10)
    assert page.events[0].event.data == deep.data


async def test_whoever_keeps_up_never_asks_the_table(sqlite, monkeypatch):
    handled = []

    @subscribe("test.*", durable="keeps-up")
    def keep_up(_connection: Connection, event: Event) -> None:
        handled.append(event.data["number"])

    followed, feed = [], Feed(sqlite)

    async def follow():
        async for _, event in feed.follow(Cursor(1, 0), types=["test.noted"]):
            followed.append(event.data["number"])

    async with running(Relay(sqlite, None), Subscriptions(sqlite, [keep_up]), feed):
        following = asyncio.create_task(follow())
        await sqlite.write(events=[noted(0)])
        await wait_until(lambda: handled and followed)
        asked, read = [], sqlite.read

        def note_down(function, *arguments):
            asked.append(function.__name__)
            return read(function, *arguments)

        monkeypatch.setattr(sqlite, "read", note_down)
        for number in range(1, 50):
            await sqlite.write(events=[noted(number)])
        await wait_until(lambda: len(handled) == len(followed) == 50)
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
    assert handled == followed == list(range(50))
    assert [name for name in asked if "of_table" in name] == []


@pytest.mark.parametrize("rows_limit", [1, 3, 10_000])
async def test_several_subscriptions_fall_behind_and_catch_up_without_a_gap(database, rows_limit):
    database.tail = Tail(rows_limit=rows_limit)
    handled = {"quick": [], "slow": [], "batches": []}

    @subscribe("test.*", durable="quick")
    def quick(_connection: Connection, event: Event) -> None:
        handled["quick"].append(event.data["number"])

    @subscribe("test.*", durable="slow")
    async def slow(event: Event) -> None:
        for _ in range(event.data["number"] % 7):
            await database.read(head)
        handled["slow"].append(event.data["number"])

    @subscribe("test.*", durable="batches", batch=10)
    def batches(_connection: Connection, found: list[Event]) -> None:
        handled["batches"] += [event.data["number"] for event in found]

    async with running(Relay(database, None), Subscriptions(database, [quick, slow, batches])):
        for number in range(0, 400, 4):
            writing = [database.write(events=[noted(number + index)]) for index in range(4)]
            if number % 40 == 0:  # a duplicate: its group is placed by the table, and the tail begins anew
                writing.append(database.write(imports(1_000), topics=[EVENTS_TOPIC]))
            await asyncio.gather(*writing)
        await wait_until(lambda: all(len(found) == 401 for found in handled.values()), timeout=30)
    for found in handled.values():
        assert [number for number in found if number != 1_000] == list(range(400))


async def test_no_wake_up_is_missed_between_reading_and_waiting(database):
    seen, woken = [], asyncio.Event()
    unsubscribe = database.on_notify(PLACED_TOPIC, woken.set)

    async def follow():
        position = 0
        while len(seen) < 300:
            woken.clear()
            page = await read_page(database, position, Wanted(), limit=7)
            seen.extend(placed.event.data["number"] for placed in page.events)
            position = page.position
            if not page.events:
                await woken.wait()

    async with running(Relay(database, None)), asyncio.timeout(30):
        following = asyncio.create_task(follow())
        for number in range(300):
            await database.write(events=[noted(number)])
        await following
    unsubscribe()
    assert seen == list(range(300))
