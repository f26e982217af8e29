"""Handlers of every kind: typed, in batches, side by side, in order by key, stopped and started again."""

import asyncio
import threading
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from notes import Note, Noted, done, letters, noted, open_notebook, place, publish, until_placed, write_down
from sqlalchemy import select

from lib_events.database import Connection
from lib_events.event import Event, EventType, current_cause
from lib_events.event_log import Cursor, read_after
from lib_events.handling import retries
from lib_events.handling import window as consumer_window
from lib_events.handling.subscriptions import Subscriptions
from lib_events.lifecycle import running
from lib_events.subscription import current_delivery, subscribe
from lib_events.tables import handled_events, subscription_cursors
from lib_events.testing import wait_until


@pytest_asyncio.fixture
async def database(database_url):
    async with open_notebook(database_url) as opened:
        yield opened


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    monkeypatch.setattr(retries, "FIRST_RETRY_SECONDS", 0.001)


async def test_a_handler_may_take_the_payload_its_type_promises(database):
    seen = []

    @subscribe(Noted, durable="typed")
    def typed(connection: Connection, note: Note) -> None:
        write_down(connection, note.number)

    @subscribe(Noted, durable="typed-async")
    async def typed_async(note: Note) -> None:
        seen.append((note, current_cause.get().causation_id, current_delivery()))

    @subscribe(Noted, durable="typed-thread")
    def typed_thread(note: Note) -> None:
        seen.append((note, current_cause.get().causation_id, threading.current_thread().name))

    event = noted(3)
    await database.write(events=[event])
    async with running(Subscriptions(database, [typed, typed_async, typed_thread])):
        await wait_until(lambda: len(seen) == 2)
        await wait_until(lambda: done(database))
    assert await done(database) == [3]
    assert {(note.number, cause) for note, cause, _ in seen} == {(3, event.id)}
    by_kind = {type(how): how for _, _, how in seen}
    assert by_kind[str].startswith("typed-thread")
    (delivery,) = (how for how in by_kind.values() if not isinstance(how, str))
    assert (delivery.attempt, delivery.idempotency_key) == (1, f"typed-async:/app-svc:{event.id}")


async def test_a_batch_handler_gets_many_events_at_once(database):
    sizes = defaultdict(list)

    @subscribe(Noted, durable="in-transaction", batch=10)
    def in_transaction(connection: Connection, notes: list[Note]) -> None:
        sizes["transaction"].append(len(notes))
        for note in notes:
            write_down(connection, note.number)

    @subscribe("test.*", durable="outside", batch=10)
    async def outside(events: list[Event]) -> None:
        sizes["outside"].append(len(events))

    await publish(database, range(35))
    async with running(Subscriptions(database, [in_transaction, outside])):
        await wait_until(lambda: sum(sizes["outside"]) == 35)
        await wait_until(lambda: sum(sizes["transaction"]) == 35)
    assert sizes["transaction"] == [10, 10, 10, 5]
    assert max(sizes["outside"]) == 10


async def test_a_poison_event_in_a_batch_is_found_and_the_others_are_handled(database):
    @subscribe(Noted, durable="batch", batch=16, attempts=2)
    def batch(connection: Connection, notes: list[Note]) -> None:
        for note in notes:
            write_down(connection, note.number)
        if any(note.number in {5, 40} for note in notes):
            raise ValueError("poison")

    await publish(database, range(50))
    async with running(Subscriptions(database, [batch])):
        await until_placed(database, 50)
    assert await done(database) == [number for number in range(50) if number not in {5, 40}]
    assert [letter.position for letter in await letters(database)] == [6, 41]


async def test_events_are_handled_side_by_side_and_in_order_by_key(database):
    under_way, most, order = 0, 0, defaultdict(list)

    @subscribe(Noted, durable="keyed", concurrency=4, key=lambda event: event.subject)
    async def keyed(event: Event) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.001)
        order[event.subject].append(event.data["number"])
        under_way -= 1

    await database.write(events=[noted(number, subject=f"s{number % 8}") for number in range(80)])
    async with running(Subscriptions(database, [keyed])):
        await wait_until(lambda: sum(map(len, order.values())) == 80)
        await until_placed(database, 80)
    assert 1 < most <= 4
    assert all(numbers == sorted(numbers) for numbers in order.values())


async def test_side_by_side_each_event_is_still_handled_once_however_often_the_loop_is_killed(database):
    @subscribe(Noted, durable="once", concurrency=8)
    def once(connection: Connection, note: Note) -> None:
        write_down(connection, note.number)

    async def more():  # in each life so many: the slower the machine the more lives it would take otherwise
        return len(await done(database)) >= min(400, before + 20)

    await publish(database, range(400))
    before = 0
    while before < 400:
        loop = Subscriptions(database, [once])
        loop.start()
        await wait_until(more)
        before = len(await done(database))
        for consumer in loop._consumers.values():
            consumer._task.cancel()  # no draining: as if killed, wherever this meets it
        await loop.stop()
    assert await done(database) == list(range(400))
    async with running(Subscriptions(database, [once])):
        await until_placed(database, 400)
    assert await database.read(lambda connection: connection.execute(select(handled_events)).all()) == []


async def test_what_was_handled_beyond_a_slow_event_is_not_handled_again_by_the_next_process(database):
    seen, release = [], asyncio.Event()

    @subscribe(Noted, durable="slow", concurrency=2, timeout=timedelta(minutes=1))
    async def slow(note: Note) -> None:
        if note.number == 0:
            await release.wait()
        seen.append(note.number)

    await publish(database, range(20))
    loop = Subscriptions(database, [slow])
    loop.start()
    await wait_until(lambda: len(seen) == 19)

    async def marked():
        return len(await database.read(lambda c: c.execute(select(handled_events)).all())) == 19

    await wait_until(marked)
    next(iter(loop._consumers.values()))._task.cancel()
    await loop.stop()
    release.set()
    async with running(Subscriptions(database, [slow])):
        await until_placed(database, 20)
    assert sorted(seen) == list(range(20))


async def test_a_slow_handler_holds_the_reader_back(database, monkeypatch):
    monkeypatch.setattr(consumer_window, "WINDOW", 10)
    release = asyncio.Event()

    @subscribe(Noted, durable="held")
    async def held(_note: Note) -> None:
        await release.wait()

    await publish(database, range(100))
    loop = Subscriptions(database, [held])
    async with running(loop):
        (consumer,) = loop._consumers.values()
        await wait_until(lambda: len(consumer._window._unfinished) == 10)
        release.set()
        await until_placed(database, 100)


async def test_large_events_hold_the_reader_back_sooner(database, monkeypatch):
    monkeypatch.setattr(consumer_window, "WINDOW_BYTES", 10_000)
    release = asyncio.Event()

    @subscribe("test.large", durable="held")
    async def held(_event: Event) -> None:
        await release.wait()

    large = EventType("test.large", str)
    await database.write(events=[Event.of(large, "x" * 1_000, source="/app-svc") for _ in range(100)])
    loop = Subscriptions(database, [held])
    async with running(loop):
        (consumer,) = loop._consumers.values()
        await wait_until(lambda: consumer._window._bytes >= 10_000)
        assert len(consumer._window._unfinished) < 10
        release.set()
        await until_placed(database, 100)
        assert consumer._window._bytes == 0


async def test_what_runs_when_we_stop_is_finished_first(database):
    seen, begun = [], asyncio.Event()

    @subscribe(Noted, durable="draining")
    async def draining(note: Note) -> None:
        begun.set()
        await asyncio.sleep(0.2)
        seen.append(note.number)

    await publish(database, range(5))
    loop = Subscriptions(database, [draining])
    loop.start()
    await begun.wait()
    await loop.stop()
    assert seen == [0]
    assert await place(database) == 1


async def test_a_handler_that_hangs_is_stopped_tried_again_and_put_aside(database):
    calls = []

    @subscribe(Noted, durable="hanging", attempts=2, timeout=timedelta(seconds=0.05))
    async def hanging(note: Note) -> None:
        calls.append(note.number)
        if note.number == 1:
            await asyncio.Event().wait()

    await publish(database, range(3))
    async with running(Subscriptions(database, [hanging])):
        await until_placed(database, 3)
    assert calls == [0, 1, 1, 2]
    (letter,) = await letters(database)
    assert (letter.position, letter.attempts, letter.error) == (2, 2, "TimeoutError: ")


async def test_the_threads_of_a_subscription_end_with_it_and_come_back_when_it_is_started_again(database):
    handled = []

    @subscribe(Noted, durable="threads-end", concurrency=3)
    def threads_end(note: Note) -> None:
        handled.append(note.number)

    def alive():
        return [thread for thread in threading.enumerate() if thread.name.startswith("threads-end")]

    subscriptions = Subscriptions(database, [threads_end])
    for life in range(1, 3):
        await publish(database, range(10 * (life - 1), 10 * life))
        async with running(subscriptions):
            await wait_until(lambda count=10 * life: set(handled) == set(range(count)))
            assert alive()
        await wait_until(lambda: not alive())


async def test_stopping_while_the_place_is_written_repeats_nothing(database, monkeypatch):
    handled, written, heard = [], asyncio.Event(), asyncio.Event()
    transact = database.transact

    async def answering_late(function, *args):
        result = await transact(function, *args)
        if function.__name__ == "move":
            written.set()
            await heard.wait()
        return result

    @subscribe(Noted, durable="place-written", concurrency=3)
    async def place_written(note: Note) -> None:
        handled.append(note.number)

    monkeypatch.setattr(database, "transact", answering_late)
    loop = Subscriptions(database, [place_written])
    loop.start()
    await publish(database, range(5))
    await written.wait()
    await publish(database, range(5, 10))
    await wait_until(lambda: len(handled) == 10)
    stopping = asyncio.create_task(loop.stop())
    await asyncio.wait([stopping], timeout=0.1)
    heard.set()
    await stopping
    async with running(Subscriptions(database, [place_written])):
        await publish(database, [10])
        await wait_until(lambda: 10 in handled)
    assert sorted(handled) == list(range(11))


async def test_what_a_handler_leaves_behind_or_returns_holds_nothing_up(database):
    left, ended = [], threading.Event()

    @subscribe(Noted, durable="leaves-tasks", concurrency=2)
    async def leaves_tasks(note: Note) -> object:
        left.append(asyncio.create_task(asyncio.Event().wait()))
        return object()

    @subscribe(Noted, durable="leaves-threads")
    def leaves_threads(note: Note) -> object:
        threading.Thread(target=ended.wait, daemon=True).start()
        return {"garbage": note}

    @subscribe(Noted, durable="leaves-transactions")
    def leaves_transactions(connection: Connection, note: Note) -> object:
        write_down(connection, note.number)
        left.append(connection)  # kept beyond its transaction
        return connection

    handlers = [leaves_tasks, leaves_threads, leaves_transactions]
    await publish(database, range(20))
    async with asyncio.timeout(20):
        async with running(Subscriptions(database, handlers)):
            for durable in ("leaves-tasks", "leaves-threads", "leaves-transactions"):
                await wait_until(lambda durable=durable: has_handled(database, durable, 20))
        assert await done(database) == [*range(20)]
    ended.set()
    for task in left:
        if isinstance(task, asyncio.Task):
            task.cancel()


async def has_handled(database, durable, position):
    mine = select(subscription_cursors.c.position).where(subscription_cursors.c.durable == durable)
    return await database.read(lambda connection: connection.scalar(mine)) == position


async def test_events_that_are_too_old_are_passed_over(database):
    seen = []

    @subscribe(Noted, durable="fresh", max_age=timedelta(hours=1))
    async def fresh(note: Note) -> None:
        seen.append(note.number)

    long_ago = datetime.now(UTC) - timedelta(hours=2)
    await database.write(events=[replace(noted(1), time=long_ago), noted(2)])
    async with running(Subscriptions(database, [fresh])):
        await until_placed(database, 2)
    assert seen == [2]


@pytest.mark.parametrize("start", ["now", "cursor", "time"])
async def test_a_new_subscription_begins_where_it_says(database, start):
    long_ago = datetime.now(UTC) - timedelta(hours=2)
    await database.write(events=[replace(noted(number), time=long_ago) for number in range(3)])
    await database.write(events=[noted(3), noted(4)])
    await wait_until(lambda: database.read(lambda connection: read_after(connection, 0).position == 5))
    starts = {"now": "now", "cursor": Cursor(1, 2), "time": datetime.now(UTC) - timedelta(hours=1)}
    seen = []

    @subscribe(Noted, durable="replay", start=starts[start])
    async def replay(note: Note) -> None:
        seen.append(note.number)

    async with running(Subscriptions(database, [replay])):
        await wait_until(lambda: place(database))
        await publish(database, [5])
        await until_placed(database, 6)
    assert seen == {"now": [5], "cursor": [2, 3, 4, 5], "time": [3, 4, 5]}[start]


def test_a_handler_that_cannot_be_called_right_is_refused_at_once():
    async def wrong(_connection: Connection, _event: Event) -> None: ...

    def payload(_connection: Connection, _note: Note) -> None: ...

    def one(_connection: Connection, _note: Event) -> None: ...

    with pytest.raises(TypeError, match="must be def f\\(connection, event\\)"):
        subscribe(Noted, durable="wrong")(wrong)
    with pytest.raises(TypeError, match="promise no payload"):
        subscribe("test.*", durable="payload")(payload)
    with pytest.raises(TypeError, match="must take a list"):
        subscribe(Noted, durable="one", batch=10)(one)
    with pytest.raises(ValueError, match="must be at least 1"):
        subscribe(Noted, durable="none", concurrency=0)


async def test_subscriptions_come_and_go_while_others_run(database):
    seen = defaultdict(list)

    def named(name):
        @subscribe(Noted, durable=name)
        async def handler(note: Note) -> None:
            seen[name].append(note.number)

        return handler

    loop = Subscriptions(database, [named("first")])
    async with running(loop):
        await publish(database, [1])
        await wait_until(lambda: seen["first"] == [1])
        loop.add(named("second"))
        with pytest.raises(ValueError, match="durable names must differ"):
            loop.add(named("second"))
        await wait_until(lambda: seen["second"] == [1])
        await loop.remove("second")
        await publish(database, [2])
        await wait_until(lambda: seen["first"] == [1, 2])
        assert seen["second"] == [1]
        loop.add(named("second"))
        await wait_until(lambda: seen["second"] == [1, 2])
        assert set(loop.positions) == {"first", "second"}
