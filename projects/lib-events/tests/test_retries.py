"""What a handler fails at or is not ready for: tried again, later, put aside, redriven, discarded."""

import asyncio
from dataclasses import replace

import pytest
import pytest_asyncio
from notes import Note, Noted, done, letters, noted, open_notebook, publish, until_placed, write_down
from sqlalchemy import select

from lib_events.database import Connection
from lib_events.event import Event
from lib_events.event_log import read_after
from lib_events.handling import retries
from lib_events.handling.dead_letters import DeadLetterRefused, discard, redrive
from lib_events.handling.subscriptions import Subscriptions
from lib_events.lifecycle import running
from lib_events.subscription import GiveUp, NotNow, TryLater, current_delivery, subscribe
from lib_events.tables import subscription_cursors
from lib_events.testing import wait_until


@pytest_asyncio.fixture
async def database(database_url):
    async with open_notebook(database_url) as opened:
        yield opened


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    monkeypatch.setattr(retries, "FIRST_RETRY_SECONDS", 0.001)


@pytest.mark.parametrize("error", [GiveUp("never mind"), "wrong data"])
async def test_what_cannot_succeed_is_not_tried_again(database, error):
    calls = []

    @subscribe(Noted, durable="hopeless", attempts=50)
    def hopeless(_connection: Connection, note: Note) -> None:
        calls.append(note)
        raise error

    event = noted(1)
    await database.write(events=[replace(event, data={"number": "x"}) if isinstance(error, str) else event])
    async with running(Subscriptions(database, [hopeless])):
        await wait_until(lambda: letters(database))
    (letter,) = await letters(database)
    assert letter.attempts == 1
    assert len(calls) == (0 if isinstance(error, str) else 1)


@pytest.mark.parametrize("kind", ["transaction", "async"])
async def test_a_dead_letter_is_redriven_edited_or_discarded(database, kind):
    broken, seen = [True], []

    def handle(number):
        if (broken and number < 3) or number < 0:
            raise ValueError(f"cannot take {number}")
        seen.append(number)

    if kind == "transaction":

        @subscribe(Noted, durable="repaired", attempts=1)
        def repaired(_connection: Connection, note: Note) -> None:
            handle(note.number)
    else:

        @subscribe(Noted, durable="repaired", attempts=1)
        async def repaired(note: Note) -> None:
            handle(note.number)

    async def those():
        return [(letter.position, letter.attempts) for letter in await letters(database)]

    await publish(database, [-1, 1, 2, 3])
    async with running(Subscriptions(database, [repaired])):
        await until_placed_of(database, "repaired", 4)
        found = await letters(database)
        assert [letter.position for letter in found] == [1, 2, 3]
        assert found[0].error == "ValueError: cannot take -1"
        broken.clear()
        await database.transact(redrive, found[0].id)  # still wrong: it rests again
        await database.transact(redrive, found[1].id)
        await wait_until(lambda: seen == [3, 1])

        async def rests_again():
            return await those() == [(1, 2), (3, 1)]

        await wait_until(rests_again)
        await database.transact(redrive, found[0].id, lambda event: replace(event, data={"number": 10}))
        await wait_until(lambda: seen == [3, 1, 10])
        await database.transact(discard, found[2].id)

        async def none_left():
            return not await those()

        await wait_until(none_left)
        with pytest.raises(DeadLetterRefused, match="there is no dead letter"):
            await database.transact(redrive, found[0].id)

    async def told():
        page = await database.read(lambda c: read_after(c, 0, types=["evs.dead-letter.*"]))
        events = [placed.event for placed in page.events]
        return len(events) == 7 and [(event.type.rpartition(".")[2], event.data["event_id"]) for event in events]

    ids = [letter.event_id for letter in found]
    assert await wait_until(told) == [
        *(("buried", event_id) for event_id in ids),
        ("redriven", ids[0]),
        ("redriven", ids[1]),
        ("redriven", ids[0]),
        ("discarded", ids[2]),
    ]


async def until_placed_of(database, durable, position):
    query = select(subscription_cursors.c.position).where(subscription_cursors.c.durable == durable)

    async def there():
        return await database.read(lambda connection: (connection.scalar(query) or 0) >= position)

    await wait_until(there)


async def test_a_subscription_to_everything_does_not_feed_on_its_own_failures(database):
    @subscribe("*", durable="everything", attempts=1)
    def everything(_connection: Connection, _event: Event) -> None:
        raise ValueError("always")

    await publish(database, [1])
    async with running(Subscriptions(database, [everything])):
        await until_placed_of(database, "everything", 2)
    assert [letter.type for letter in await letters(database)] == ["test.noted", "evs.dead-letter.buried"]


async def test_a_key_function_that_fails_puts_the_event_aside(database):
    seen = []

    @subscribe(Noted, durable="keyless", concurrency=2, key=lambda event: {0: "a"}[event.data["number"]])
    async def keyless(note: Note) -> None:
        seen.append(note.number)

    await publish(database, [0, 1, 0])
    async with running(Subscriptions(database, [keyless])):
        await until_placed_of(database, "keyless", 3)
    assert seen == [0, 0]
    assert [letter.error for letter in await letters(database)] == ["KeyError: 1"]


async def test_what_a_handler_wants_later_holds_nothing_up_and_its_attempts_count_on(database):
    attempts = []

    @subscribe(Noted, durable="later")
    async def later(note: Note) -> None:
        attempts.append((note.number, current_delivery().attempt))
        if note.number == 1 and current_delivery().attempt < 4:
            raise TryLater("busy", seconds=0.01)

    await publish(database, [1, 2])
    async with running(Subscriptions(database, [later])):
        await wait_until(lambda: (1, 4) in attempts)
        await wait_until(lambda: is_empty(database))
    assert [attempt for number, attempt in attempts if number == 1] == [1, 2, 3, 4]
    assert attempts.index((2, 1)) < attempts.index((1, 4))
    page = await database.read(lambda connection: read_after(connection, 0, types=["evs.dead-letter.*"]))
    assert page.events == []


async def is_empty(database):
    return await letters(database) == []


async def test_what_is_wanted_later_waits_over_a_restart_and_is_told_when_it_is_given_up(database):
    delay, attempts = 3600.0, []

    @subscribe(Noted, durable="much-later")
    def much_later(connection: Connection, note: Note) -> None:
        attempts.append(current_delivery().attempt)
        if len(attempts) > 2:
            raise GiveUp("enough")
        raise TryLater("busy", seconds=delay)

    await publish(database, [1])
    async with running(Subscriptions(database, [much_later])):
        (letter,) = await wait_until(lambda: letters(database))
        await until_placed(database, 1)
    assert (letter.attempts, letter.deferred_attempts, letter.redriven_at > letter.dead_at) == (1, 1, True)
    delay = 0.01
    async with running(Subscriptions(database, [much_later])):
        await database.transact(redrive, letter.id)

        async def told():
            page = await database.read(lambda c: read_after(c, 0, types=["evs.dead-letter.buried"]))
            return page.events

        (buried,) = await wait_until(told)
    (letter,) = await letters(database)
    assert (attempts, letter.attempts, letter.deferred_attempts, letter.redriven_at) == ([1, 2, 3], 3, 0, None)
    assert buried.event.data["error"] == "GiveUp: enough"


async def test_what_is_wanted_later_can_be_discarded_before(database):
    @subscribe(Noted, durable="never")
    async def never(_note: Note) -> None:
        raise TryLater("busy", seconds=3600)

    await publish(database, [1])
    async with running(Subscriptions(database, [never])):
        (letter,) = await wait_until(lambda: letters(database))
        await database.transact(discard, letter.id)
    assert await letters(database) == []


async def test_a_handler_that_is_not_ready_is_called_again_and_that_is_no_attempt(database):
    calls = []

    @subscribe(Noted, durable="not-ready", attempts=2)
    def not_ready(connection: Connection, note: Note) -> None:
        calls.append(current_delivery().attempt)
        if len(calls) < 5:
            raise NotNow(seconds=0.001)
        write_down(connection, note.number)

    await publish(database, [7])
    async with running(Subscriptions(database, [not_ready])):
        await wait_until(lambda: done(database))
    assert (calls, await done(database), await letters(database)) == ([1] * 5, [7], [])


async def test_a_handler_that_is_not_ready_for_long_stops_at_once(database):
    called = asyncio.Event()

    @subscribe(Noted, durable="asleep")
    async def asleep(_note: Note) -> None:
        called.set()
        raise NotNow(seconds=3600)

    await publish(database, [1])
    async with asyncio.timeout(5), running(Subscriptions(database, [asleep])):
        await called.wait()
    assert await letters(database) == []
