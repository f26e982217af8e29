"""The inbox: what another service publishes arrives in our log, once, in order, and checked."""

import asyncio
import os
import shutil
import signal
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Annotated

import nats
import pytest
import pytest_asyncio
from pydantic import AfterValidator, BaseModel
from pydantic_core import from_json
from sqlalchemy import delete, select, update

from lib_events.database import EVENTS_TOPIC, REWRITTEN_TOPIC, open_database
from lib_events.event import Event, EventRegistry, EventType
from lib_events.event_log import SCHEMA, read_after
from lib_events.handling.dead_letters import redrive
from lib_events.lifecycle import running
from lib_events.nats.broker import Broker, Message
from lib_events.nats.importer import Importer, subjects_of
from lib_events.nats.importer import _row as row_of
from lib_events.nats.permissions import import_prefix
from lib_events.nats.relay import Relay
from lib_events.tables import dead_letters, event_log_state, events, import_places
from lib_events.testing import wait_until


class Note(BaseModel):
    number: int


Noted = EventType("evs.user.noted", Note)
Ignored = EventType("evs.key.rotated", Note)
Looked = EventType("evs.user.odd", Annotated[str, AfterValidator({"known": "word"}.__getitem__)])


@pytest_asyncio.fixture
async def database(database_url):
    opened = await open_database(database_url, service="app-svc", schemas=[SCHEMA])
    yield opened
    await opened.close()


REGISTRY = EventRegistry(Noted, Looked)


def connect(server, service):
    return Broker(server.url, service=service, seed_file=server.credentials(service))


def noted(number, *, source="/auth-svc", event_type=Noted):
    return Event.of(event_type, Note(number=number), source=source)


def message(event, *, message_id=None, subject=None, body=None):
    return Message(
        subject or f"events.auth-svc.{event.type}", message_id or event.id, body or event.to_json(), "application/json"
    )


def deep(event):
    return replace(event, data=from_json(b"[" * 201 + b"]" * 201)).to_json()


@asynccontextmanager
async def importing(database, server):
    async with connect(server, "app-svc") as broker:
        importer = Importer(database, broker, sources=["auth-svc"], types=["evs.user.*"], registry=REGISTRY)
        async with running(importer, Relay(database, broker)):
            yield


@asynccontextmanager
async def publishing(server):
    async with connect(server, "auth-svc") as broker:
        await broker.wait_connected()
        await broker.ensure_stream()
        yield broker


async def numbers(database):
    page = await database.read(lambda connection: read_after(connection, 0, limit=10_000))
    assert [placed.position for placed in page.events] == list(range(1, len(page.events) + 1))
    found = [placed for placed in page.events if not placed.event.type.startswith("evs.dead-letter.")]
    assert all(placed.imported for placed in found)
    return [placed.event.data["number"] for placed in found]


async def imported(database, expected):
    async def complete():
        return await numbers(database) == expected

    await wait_until(complete)


def refusals(connection):
    return connection.execute(select(dead_letters).order_by(dead_letters.c.position)).all()


async def test_events_arrive_in_order_and_others_do_not(database, fresh_nats_server):
    async with importing(database, fresh_nats_server), publishing(fresh_nats_server) as broker:
        await broker.publish_batch([message(noted(-1, event_type=Ignored))])
        for start in range(0, 300, 100):
            await broker.publish_batch([message(noted(number)) for number in range(start, start + 100)])
        await imported(database, list(range(300)))
    async with connect(fresh_nats_server, "app-svc") as own:
        await own.wait_connected()
        assert (await own.stream_state()).last_sequence == 0, "an imported event must not be published again"


async def test_an_event_delivered_twice_is_imported_once(database, fresh_nats_server):
    event = noted(1)
    async with importing(database, fresh_nats_server), publishing(fresh_nats_server) as broker:
        await broker.publish_batch([message(event, message_id="a"), message(event, message_id="b")])
        await broker.publish_batch([message(event, message_id="c"), message(noted(2))])
        await imported(database, [1, 2])


@pytest.mark.parametrize("numbers", [[1, 2, 3], [1, 1, 2], [0, 1, 2]], ids=["all new", "one twice", "one known"])
async def test_own_and_imported_events_of_one_commit_have_positions_without_a_gap(database, numbers):
    theirs = [noted(number) for number in range(4)]
    known, *rows = [row_of(theirs[number], theirs[number].to_json()) for number in (0, *numbers)]
    async with running(Relay(database, None)):
        await database.write(known, topics=[EVENTS_TOPIC])
        own = [noted(number, source="/app-svc", event_type=Ignored) for number in (10, 11)]
        await asyncio.gather(
            database.write(events=own[:1]),
            *(database.write(row, topics=[EVENTS_TOPIC]) for row in rows),
            database.write(events=own[1:]),
        )
        expected = {event.id for event in (*own, *(theirs[number] for number in (0, *numbers)))}

        async def all_placed():
            page = await database.read(lambda connection: read_after(connection, 0))
            return page.events if len(page.events) == len(expected) else None

        found = await wait_until(all_placed)
    assert [placed.position for placed in found] == [*range(1, len(expected) + 1)]
    assert {placed.event.id for placed in found} == expected
    assert [placed.imported for placed in found] == [placed.event.source != "/app-svc" for placed in found]


async def test_what_came_while_we_were_away_is_imported_when_we_are_back(database, fresh_nats_server):
    async with publishing(fresh_nats_server) as broker:
        async with importing(database, fresh_nats_server):
            await broker.publish_batch([message(noted(1))])
            await imported(database, [1])
        await broker.publish_batch([message(noted(2)), message(noted(3))])
        async with importing(database, fresh_nats_server):
            await imported(database, [1, 2, 3])


async def test_a_restored_database_gets_again_what_it_had_imported_since_its_backup(database, fresh_nats_server):
    """The consumer has acknowledged that, and the broker is no part of a backup."""

    def go_back(connection):
        """To the moment when the first event alone had come."""
        connection.execute(delete(events).where(events.c.last_position > 1))
        connection.execute(update(event_log_state).values(placed_position=1))
        connection.execute(update(import_places).values(sequence=1))
        connection.notify(REWRITTEN_TOPIC)

    async with publishing(fresh_nats_server) as broker:
        await broker.publish_batch([message(noted(number)) for number in (1, 2, 3)])
    async with importing(database, fresh_nats_server):
        await imported(database, [1, 2, 3])
    await database.transact(go_back)
    async with importing(database, fresh_nats_server):
        await imported(database, [1, 2, 3])


async def test_a_database_from_before_its_stream_was_made_anew_gets_all_that_it_lacks(database, fresh_nats_server):
    """Its place is one in the stream of before: what the new one holds up to there was passed over, and lost."""

    def go_back(connection):
        """To the backup, when the first six had come, of a stream that had them all."""
        connection.execute(delete(events).where(events.c.last_position > 6))
        connection.execute(update(event_log_state).values(placed_position=6))
        connection.execute(update(import_places).values(**backup._mapping))
        connection.notify(REWRITTEN_TOPIC)

    sent = [message(noted(number)) for number in range(10)]
    async with importing(database, fresh_nats_server):
        async with publishing(fresh_nats_server) as broker:
            await broker.publish_batch(sent[:6])
            await imported(database, list(range(6)))
        backup = await database.read(lambda connection: connection.execute(select(import_places)).one())
        await fresh_nats_server.stop()
        shutil.rmtree(fresh_nats_server.folder / "jetstream")
        await fresh_nats_server.start()
        async with publishing(fresh_nats_server) as broker:
            await broker.publish_batch(sent[4:])  # those before are too old for it
            await imported(database, list(range(10)))
    await database.transact(go_back)
    async with importing(database, fresh_nats_server):
        await imported(database, list(range(10)))


async def test_a_consumer_that_a_release_before_has_made_is_gone_on_with(database, fresh_nats_server):
    """It has no name of its life, and neither has the place that is written down."""

    def before(connection):
        connection.execute(update(import_places).values(consumer=None))

    async with publishing(fresh_nats_server) as broker:
        await broker.publish_batch([message(noted(number)) for number in range(3)])
        async with importing(database, fresh_nats_server):
            await imported(database, [0, 1, 2])
        await database.transact(before)
        async with connect(fresh_nats_server, "app-svc") as own:
            await own.wait_connected()
            jetstream = own._jetstream(import_prefix("auth-svc"))
            found = (await jetstream.consumer_info("events-auth-svc", "app-svc")).config
            await jetstream.add_consumer("events-auth-svc", found.evolve(description=""))
        await broker.publish_batch([message(noted(3))])
        async with importing(database, fresh_nats_server):
            await imported(database, [0, 1, 2, 3])
    place = await database.read(lambda connection: connection.execute(select(import_places)).one())
    assert (place.sequence, bool(place.consumer)) == (4, True)


async def test_nats_killed_in_the_middle_loses_and_doubles_nothing(database, fresh_nats_server):
    async with importing(database, fresh_nats_server), publishing(fresh_nats_server) as broker:
        for start in range(0, 600, 200):
            await broker.publish_batch([message(noted(number)) for number in range(start, start + 200)])
            before = fresh_nats_server.pid
            os.kill(before, signal.SIGKILL)
            await wait_until(lambda gone=before: fresh_nats_server.pid not in (None, gone))
            await wait_until(lambda: broker.connected)
        await imported(database, list(range(600)))


async def test_a_refilled_stream_is_imported_once(database, fresh_nats_server):
    sent = [message(noted(number)) for number in range(5)]
    async with importing(database, fresh_nats_server):
        async with publishing(fresh_nats_server) as broker:
            await broker.publish_batch(sent)
            await imported(database, [0, 1, 2, 3, 4])
        await fresh_nats_server.stop()
        shutil.rmtree(fresh_nats_server.folder / "jetstream")
        await fresh_nats_server.start()
        async with publishing(fresh_nats_server) as broker:
            await broker.publish_batch([*sent, message(noted(5))])
            await imported(database, [0, 1, 2, 3, 4, 5])


async def test_what_is_refused_of_a_stream_that_was_made_anew_is_kept_beside_what_was_refused_before(
    database, fresh_nats_server
):
    """It has the same place there, and was acknowledged and forgotten."""
    first, second = (message(noted(0), message_id=f"1.{number}", body=b"{") for number in (1, 2))
    async with importing(database, fresh_nats_server):
        async with publishing(fresh_nats_server) as broker:
            await broker.publish_batch([first])
            await wait_until(lambda: database.read(refusals))
        await fresh_nats_server.stop()
        shutil.rmtree(fresh_nats_server.folder / "jetstream")
        await fresh_nats_server.start()
        async with publishing(fresh_nats_server) as broker:
            await broker.publish_batch([second, message(noted(3))])
            await imported(database, [3])
    found = await database.read(refusals)
    assert {(refusal.position, refusal.event_id) for refusal in found} == {(1, "1.1"), (1, "1.2")}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (message(noted(0, source="/app-svc")), "source must be '/auth-svc'"),
        (message(noted(0), subject="events.auth-svc.evs.user.other"), "type must be the subject's"),
        (message(noted(0, event_type=EventType("evs.user.unknown", Note))), "not registered"),
        (message(Event.of(EventType("evs.user.noted", str), "x", source="/auth-svc")), "data"),
        (message(noted(0), body=b"{"), "must be JSON"),
        (message(replace(noted(0), subject="a\0b"), message_id="1"), "U+0000"),
        (message(replace(noted(0), extensions={"principal": "\0"})), "U+0000"),
        (message(replace(noted(0), id="x" * 5_000), message_id="1"), "at most 1000 bytes"),
        (message(replace(noted(0), type="a\0b"), subject="events.auth-svc.evs.user.noted"), "the subject's"),
        (message(replace(noted(0), data={"number": float("inf")})), "finite"),
        (message(noted(0), body=deep(noted(0))), "at most 200 levels"),
        (
            message(
                noted(0),
                subject="events.auth-svc.evs.user.odd",
                body=replace(noted(0), type=Looked.name, data="?").to_json(),
            ),
            "KeyError",
        ),
    ],
    ids=[
        *("forged source", "wrong subject", "unknown type", "invalid data", "no JSON", "NUL", "NUL behind", "long id"),
        *("NUL in its type", "infinite", "too deep", "a check that breaks"),
    ],
)
async def test_a_bad_event_is_refused_recorded_and_holds_nothing_up(database, fresh_nats_server, caplog, bad, reason):
    async with importing(database, fresh_nats_server), publishing(fresh_nats_server) as broker:
        await broker.publish_batch([message(noted(1)), bad, message(noted(2))])
        await imported(database, [1, 2])
        (refusal,) = await database.read(refusals)
        assert (refusal.durable, refusal.position) == ("import from auth-svc", 2)
        assert reason in refusal.error

        async def settled():
            info = await broker._jetstream().stream_info("events-auth-svc")
            return info.state.consumer_count == 1

        await wait_until(settled)
    assert "refused an event of auth-svc" in caplog.text


async def test_a_message_that_went_to_another_client_of_ours_is_not_acknowledged_with_those_behind_it(
    database, fresh_nats_server
):
    seed = fresh_nats_server.credentials("app-svc").read_text().strip()
    thief = await nats.connect(fresh_nats_server.url, nkeys_seed_str=seed, inbox_prefix=b"_INBOX_app-svc")
    jetstream = thief.jetstream(prefix=import_prefix("auth-svc"))

    async def both_wait():
        return (await jetstream.consumer_info("events-auth-svc", "app-svc")).num_waiting == 2

    async with importing(database, fresh_nats_server), publishing(fresh_nats_server) as broker:
        await broker.publish_batch([message(noted(0))])
        await imported(database, [0])
        pull = await jetstream.pull_subscribe_bind(consumer="app-svc", stream="events-auth-svc")
        stealing = asyncio.create_task(pull.fetch(1, timeout=30))
        await wait_until(both_wait)
        await broker.publish_batch([message(noted(1)), message(noted(2))])  # they take turns
        assert len(await stealing) == 1
        await broker.publish_batch([message(noted(3)), message(noted(4))])
        await imported(database, [0, 1, 2, 3, 4])
    await thief.close()


async def test_what_was_refused_is_let_in_once_it_is_edited(database, fresh_nats_server):
    bad = message(replace(noted(3), data={"number": "three"}))
    async with importing(database, fresh_nats_server), publishing(fresh_nats_server) as broker:
        await broker.publish_batch([message(noted(1)), bad])
        (refusal,) = await wait_until(lambda: database.read(refusals))
        await database.transact(redrive, refusal.id)  # as wrong as it was

        async def refused_again():
            return [(found.attempts, found.redriven_at) for found in await database.read(refusals)] == [(2, None)]

        await wait_until(refused_again)
        await database.transact(redrive, refusal.id, lambda event: replace(event, data={"number": 3}))
        await imported(database, [1, 3])
        assert await database.read(refusals) == []


@pytest.mark.postgresql
async def test_of_several_processes_one_imports(postgresql_url, fresh_nats_server):
    databases = [await open_database(postgresql_url, service="app-svc", schemas=[SCHEMA]) for _ in range(2)]
    async with (
        publishing(fresh_nats_server) as broker,
        importing(databases[0], fresh_nats_server),
        importing(databases[1], fresh_nats_server),
    ):
        await broker.publish_batch([message(noted(number)) for number in range(100)])
        await imported(databases[1], list(range(100)))
    await asyncio.gather(*(database.close() for database in databases))


def test_covered_subjects_are_left_out():
    assert subjects_of("auth-svc", ["evs.user.*", "evs.user.noted", "evs.key.rotated", "evs.key.rotated"]) == [
        "events.auth-svc.evs.user.>",
        "events.auth-svc.evs.key.rotated",
    ]
    assert subjects_of("auth-svc", ["*", "evs.user.*"]) == ["events.auth-svc.>"]
