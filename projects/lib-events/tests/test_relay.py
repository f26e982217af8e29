"""The relay: dense positions in one order, and every own event on NATS in that order, once."""

import asyncio
import json
import os
import shutil
import signal
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
import pytest_asyncio
from nats.js.errors import NotFoundError
from pydantic import BaseModel
from sqlalchemy import delete, insert, select, update

from lib_events.database import EVENTS_TOPIC, REWRITTEN_TOPIC, open_database
from lib_events.event import Event, EventType
from lib_events.event_log import SCHEMA, committed_position, head, imported_row, read_after
from lib_events.lifecycle import running
from lib_events.nats import relay as relay_module
from lib_events.nats.broker import Broker, PublishFailed, StreamState
from lib_events.nats.relay import Relay, align, next_batch, place, record
from lib_events.tables import event_log_state, events
from lib_events.testing import wait_until


class Note(BaseModel):
    number: int


Noted = EventType("test.noted", Note)
Ticked = EventType("evs.test.ticked", Note, packed=True)


def noted(number, *, event_type=Noted, source="/app-svc"):
    return Event.of(event_type, Note(number=number), source=source)


@pytest_asyncio.fixture
async def database(database_url):
    opened = await open_database(database_url, service="app-svc", schemas=[SCHEMA])
    yield opened
    await opened.close()


def connect(server, service="app-svc"):
    return Broker(server.url, service=service, seed_file=server.credentials(service))


@asynccontextmanager
async def relaying(database, server):
    async with connect(server) as broker, running(Relay(database, broker)):
        yield broker


async def placed_numbers(database):
    page = await database.read(read_after, 0)
    return [(placed.position, placed.event.data["number"]) for placed in page.events]


def state_of(connection):
    return connection.execute(select(event_log_state)).one()


async def published_up_to(database, position):
    async def reached():
        return (await database.read(state_of)).published_position >= position

    await wait_until(reached)


async def on_nats(server, count, *, service="auth-svc", last=None):
    """What our stream holds: (message id, body) in order, `count` messages and no more than up to the id `last`."""
    found = []
    async with connect(server, service) as reader:
        await reader.wait_connected()
        async with asyncio.timeout(20), aclosing(reader.imports("app-svc", ["events.app-svc.>"])) as batches:
            async for batch in batches:
                for message in batch:
                    await message.ack_sync()
                    found.append((message.headers["Nats-Msg-Id"], message.headers["content-type"], message.data))
                if len(found) >= count and last in (None, found[-1][0]):
                    break
        info = await reader._jetstream("imports.app-svc").consumer_info("events-app-svc", service)
        assert info.num_pending == 0
    return found


async def test_positions_are_given_without_a_broker(database):
    async with running(Relay(database, None)):
        for number in range(1, 4):
            await database.write(events=[noted(number)])
        await wait_until(lambda: database.read(lambda connection: head(connection).position == 3))
    assert await placed_numbers(database) == [(1, 1), (2, 2), (3, 3)]


async def test_a_segment_takes_a_position_for_each_of_its_events(database):
    await database.write(events=[noted(1)])
    await database.write(events=[noted(2, event_type=Ticked), noted(3, event_type=Ticked)])
    await database.write(events=[noted(4)])
    while await database.transact(place):
        pass
    assert await placed_numbers(database) == [(1, 1), (2, 2), (3, 3), (4, 4)]


async def test_what_is_committed_has_the_same_end_before_it_is_placed_and_after(database):
    packed = [noted(2, event_type=Ticked), noted(3, event_type=Ticked)]
    for after, sent, more in ((3, [noted(1)], packed), (6, [noted(4), noted(5)], [noted(6)])):
        await database.write(events=sent)
        await database.write(events=more)
        assert await database.read(committed_position) == after
        while await database.transact(place):
            pass
        assert await database.read(committed_position) == (await database.read(head)).position == after


async def test_many_rows_are_placed_in_several_transactions(database, monkeypatch):
    monkeypatch.setattr(relay_module, "PLACE_LIMIT", 7)
    await asyncio.gather(*(database.write(events=[noted(number)]) for number in range(40)))
    async with running(Relay(database, None)):
        await wait_until(lambda: database.read(lambda connection: head(connection).position == 40))
    assert [position for position, _ in await placed_numbers(database)] == list(range(1, 41))


@pytest.mark.postgresql
async def test_positions_are_dense_while_several_writers_and_a_long_transaction_commit(postgresql_url):
    databases = [await open_database(postgresql_url, service="app-svc", schemas=[SCHEMA]) for _ in range(4)]
    parts = urlsplit(postgresql_url)
    schema = parse_qs(parts.query)["schema"][0]
    options = {name: values[0] for name, values in parse_qs(parts.query).items() if name != "schema"}
    long = await asyncpg.connect(
        user=parts.username, password=parts.password, database=parts.path.strip("/"),
        host=options.get("host", parts.hostname), port=parts.port, server_settings={"search_path": schema},
    )  # fmt: skip
    transaction = long.transaction()
    await transaction.start()
    row = imported_row(noted(-1)) | {"imported": False}
    columns, values = ", ".join(row), ", ".join(f"${number}" for number in range(1, len(row) + 1))
    await long.execute(f"INSERT INTO events ({columns}) VALUES ({values})", *row.values())
    seen = []

    async def follow():
        position = 0
        while len(seen) < 401:
            page = await databases[0].read(read_after, position)
            seen.extend((placed.position, placed.event.data["number"]) for placed in page.events)
            position = page.position
            await asyncio.sleep(0)

    async def write(database, start):
        for number in range(start, start + 100):
            await database.write(events=[noted(number)])

    relays = [Relay(database, None) for database in databases]
    async with running(*relays):
        following = asyncio.create_task(follow())
        await asyncio.gather(*(write(database, 100 * index) for index, database in enumerate(databases)))
        await wait_until(lambda: len(seen) == 400)
        await transaction.commit()
        await asyncio.wait_for(following, 10)
    assert [position for position, _ in seen] == list(range(1, 402))
    assert seen[-1][1] == -1
    for index in range(4):
        own = [number for _, number in seen if 100 * index <= number < 100 * (index + 1)]
        assert own == list(range(100 * index, 100 * (index + 1)))
    await long.close()
    for database in databases:
        await database.close()


@pytest.mark.postgresql
async def test_another_process_takes_over_when_the_leader_goes(postgresql_url):
    first, second = [await open_database(postgresql_url, service="app-svc", schemas=[SCHEMA]) for _ in range(2)]
    leader, standby = Relay(first, None), Relay(second, None)
    async with running(leader):
        await first.write(events=[noted(1)])
        await wait_until(lambda: first.read(lambda connection: head(connection).position == 1))
        async with running(standby):
            await leader.stop()
            await second.write(events=[noted(2)])
            await wait_until(lambda: first.read(lambda connection: head(connection).position == 2))
    await first.close()
    await second.close()


async def test_own_events_go_to_nats_in_order_as_cloudevents(database, fresh_nats_server):
    async with relaying(database, fresh_nats_server):
        sent = [noted(number) for number in range(1, 1201)]
        await asyncio.gather(*(database.write(events=[event]) for event in sent))
        ticks = [noted(0, event_type=Ticked), noted(1, event_type=Ticked)]
        await database.write(events=ticks)
        await published_up_to(database, 1202)
    found = await on_nats(fresh_nats_server, 1201)
    assert [message_id for message_id, _, _ in found] == [f"1.{number}" for number in range(1, 1201)] + ["1.1202"]
    assert found[0][1] == "application/cloudevents+json"
    assert Event.from_json(found[0][2]).id == sent[0].id
    assert found[-1][1] == "application/cloudevents-batch+json"
    assert [event["id"] for event in json.loads(found[-1][2])] == [event.id for event in ticks]


async def test_imported_events_are_placed_and_not_published(database, fresh_nats_server):
    def take_in(connection):
        connection.execute(insert(events), imported_row(noted(1, source="/auth-svc")))
        connection.notify(EVENTS_TOPIC)

    await database.transact(take_in)
    await database.write(events=[noted(2)])
    async with relaying(database, fresh_nats_server):
        await published_up_to(database, 2)
        await database.transact(lambda connection: connection.execute(insert(events), imported_row(noted(3))))
        await published_up_to(database, 3)
    assert [message_id for message_id, _, _ in await on_nats(fresh_nats_server, 1)] == ["1.2"]


async def test_positions_go_on_while_nats_is_away_and_everything_is_published_when_it_is_back(
    database, fresh_nats_server
):
    async with relaying(database, fresh_nats_server):
        await database.write(events=[noted(1)])
        await published_up_to(database, 1)
        await fresh_nats_server.stop()
        for number in range(2, 21):
            await database.write(events=[noted(number)])
        await wait_until(lambda: database.read(lambda connection: head(connection).position == 20))
        await fresh_nats_server.start()
        await published_up_to(database, 20)
    assert [message_id for message_id, _, _ in await on_nats(fresh_nats_server, 20)] == [f"1.{n}" for n in range(1, 21)]


async def test_a_wiped_store_is_filled_again_from_the_log(database, fresh_nats_server):
    async with relaying(database, fresh_nats_server):
        await asyncio.gather(*(database.write(events=[noted(number)]) for number in range(30)))
        await published_up_to(database, 30)
        await fresh_nats_server.stop()
        shutil.rmtree(fresh_nats_server.folder / "jetstream")
        await fresh_nats_server.start()
        await database.write(events=[noted(31)])
        found = await wait_for_stream(fresh_nats_server, "1.31")
    assert found == [f"1.{number}" for number in range(1, 32)]


async def test_what_a_stream_would_hold_no_more_is_not_filled_in_again(database, fresh_nats_server):
    """An importer that keeps less than we do would import, and handle, it once more."""
    old = [replace(noted(number), time=noted(0).time - timedelta(days=8)) for number in range(3)]
    await database.write(events=[*old, noted(3)])
    async with relaying(database, fresh_nats_server):
        await published_up_to(database, 4)
        assert await wait_for_stream(fresh_nats_server, "1.4") == [f"1.{n}" for n in (1, 2, 3, 4)], "for the first time"
        await fresh_nats_server.stop()
        shutil.rmtree(fresh_nats_server.folder / "jetstream")
        await fresh_nats_server.start()
        await database.write(events=[replace(old[0], id="late")])
        assert await wait_for_stream(fresh_nats_server, "1.5") == ["1.4", "1.5"]


async def wait_for_stream(server, last_id):
    async with connect(server) as broker:
        await broker.wait_connected()

        async def complete():
            try:
                return (await broker.stream_state()).last_message_id == last_id
            except NotFoundError:
                return False

        await wait_until(complete)
        count = (await broker.stream_state()).last_sequence
    return [message_id for message_id, _, _ in await on_nats(server, count)]


async def test_a_lost_acknowledgement_does_not_publish_twice(database, fresh_nats_server, monkeypatch):
    publish, failures = Broker.publish_batch, []

    async def publish_and_lose_the_answer(self, messages):
        await publish(self, messages)
        if len(failures) < 3:
            failures.append(len(messages))
            raise PublishFailed("the answer was lost")

    monkeypatch.setattr(Broker, "publish_batch", publish_and_lose_the_answer)
    async with relaying(database, fresh_nats_server):
        written = 0
        while written < 50 or len(failures) < 3:
            written += 1
            await database.write(events=[noted(written)])
        await published_up_to(database, written)
    found = [message_id for message_id, _, _ in await on_nats(fresh_nats_server, written)]
    assert found == [f"1.{number}" for number in range(1, written + 1)]


async def test_nothing_is_lost_or_doubled_when_nats_is_killed_again_and_again(database, fresh_nats_server):
    async with relaying(database, fresh_nats_server):
        for round_number in range(5):
            before = fresh_nats_server.pid
            writing = [database.write(events=[noted(round_number * 200 + number)]) for number in range(200)]
            os.kill(before, signal.SIGKILL)
            await asyncio.gather(*writing)
            await wait_until(lambda gone=before: fresh_nats_server.pid not in (None, gone))
        await published_up_to(database, 1000)
    found = [message_id for message_id, _, _ in await on_nats(fresh_nats_server, 1000)]
    assert found == [f"1.{number}" for number in range(1, 1001)]


async def test_a_batch_begins_after_the_last_one_and_steps_over_imported_events(database):
    await database.write(events=[noted(1), noted(2)])
    await database.transact(place)
    first = await next_batch(database, 0)
    assert (first.after, first.end, len(first.rows)) == (0, 2, 2)
    await database.transact(lambda connection: connection.execute(insert(events), imported_row(noted(3))))
    await database.transact(place)
    following = await next_batch(database, first.end)
    assert (following.after, following.end, len(following.rows)) == (2, 3, 0)


async def test_a_database_older_than_its_stream_begins_a_new_epoch(database, caplog):
    await database.write(events=[noted(1)])
    await database.transact(place)
    await database.transact(align, StreamState(last_sequence=9, last_message_id="1.9"))
    assert (await database.read(head)).epoch == 2
    assert "older than its stream" in caplog.text
    await database.transact(align, StreamState(last_sequence=9, last_message_id="1.9"))
    assert (await database.read(head)).epoch == 2


async def test_a_stream_that_has_lost_all_of_an_epoch_gets_it_again(database):
    """What it was told lately is not on its disk for two minutes; that it ends with what was before tells it."""
    await database.write(events=[noted(number) for number in range(5)])
    await database.transact(place)
    before = StreamState(last_sequence=9, last_message_id="1.9", last_body=noted(9).to_json())
    await database.transact(align, before)
    await database.transact(record, 5)  # published as 2.1 to 2.5
    assert await database.transact(align, before) == 0
    assert (await database.read(head)).epoch == 2


async def test_a_restored_database_that_has_come_as_far_as_its_stream_again_begins_a_new_epoch(
    database, fresh_nats_server
):
    """NATS was away as it was restored: what it did since has positions that the stream knows for something else."""

    def go_back(connection):
        """To the moment of the backup, when there was the first event alone."""
        connection.execute(delete(events).where(events.c.last_position > 1))
        connection.execute(update(event_log_state).values(placed_position=1, published_position=1))
        connection.notify(REWRITTEN_TOPIC)

    await database.write(events=[noted(number) for number in range(3)])
    async with relaying(database, fresh_nats_server):
        await published_up_to(database, 3)
    await database.transact(go_back)
    since = [noted(number) for number in (11, 12, 13)]
    await database.write(events=since)
    await database.transact(place)
    async with relaying(database, fresh_nats_server):
        await published_up_to(database, 4)
    assert (await database.read(head)).epoch == 2
    found = [json.loads(body)["id"] for _, _, body in await on_nats(fresh_nats_server, 6)]
    assert found[3:] == [event.id for event in since]


@pytest.mark.parametrize("packed", [False, True])
async def test_a_database_that_has_what_its_stream_ends_with_keeps_its_epoch(database, fresh_nats_server, packed):
    await database.write(events=[noted(number, event_type=Ticked if packed else Noted) for number in range(3)])
    for count in (3, 4):
        async with relaying(database, fresh_nats_server):
            await published_up_to(database, count)
        await database.write(events=[noted(count)])
        await database.transact(place)
    assert (await database.read(head)).epoch == 1


async def test_a_stream_whose_messages_aged_out_is_not_filled_again(database):
    await database.write(events=[noted(1)])
    await database.transact(place)
    await database.transact(record, 1)
    await database.transact(align, StreamState(last_sequence=1, last_message_id=None))
    assert (await database.read(state_of)).published_position == 1


async def test_a_segment_too_large_for_a_message_is_cut_and_one_cut_off_goes_on_inside(
    database, fresh_nats_server, monkeypatch
):
    monkeypatch.setattr(Broker, "max_payload", 2048)
    ticks = [noted(number, event_type=Ticked) for number in range(20)]
    await database.write(events=ticks)
    async with relaying(database, fresh_nats_server):
        await published_up_to(database, 20)
    found = await on_nats(fresh_nats_server, 3, last="1.20")
    assert all(len(body) <= 1024 for _, _, body in found)
    assert [event["id"] for _, _, body in found for event in json.loads(body)] == [event.id for event in ticks]
    assert found[-1][0] == "1.20"
    middle = int(found[0][0].removeprefix("1."))
    await database.transact(align, StreamState(1, f"1.{middle}"))
    (row,) = (await next_batch(database, middle)).rows
    ((_, body),) = relay_module._bodies(row, middle, 100_000)
    assert len(json.loads(body)) == 20 - middle


@pytest.mark.parametrize("event_type", ["test.big", "bad type\r\nPUB x 0"])
async def test_an_event_nats_cannot_take_stays_in_the_log_and_holds_nothing_up(
    database, fresh_nats_server, monkeypatch, caplog, event_type
):
    monkeypatch.setattr(Broker, "max_payload", 2048)
    text = "x" * 3000 if event_type == "test.big" else "x"
    bad = replace(Event.of(EventType("test.big", str), text, source="/app-svc"), type=event_type)
    await database.write(events=[noted(1), bad, noted(3)])
    async with relaying(database, fresh_nats_server):
        await published_up_to(database, 3)
    assert [message_id for message_id, _, _ in await on_nats(fresh_nats_server, 2)] == ["1.1", "1.3"]
    assert "other services will not see it" in caplog.text


async def test_a_restored_database_publishes_under_its_new_epoch(database, fresh_nats_server):
    await database.write(events=[noted(1)])
    async with relaying(database, fresh_nats_server):
        await published_up_to(database, 1)
    await database.transact(lambda connection: connection.execute(update(event_log_state).values(epoch=2)))
    async with relaying(database, fresh_nats_server):
        await database.write(events=[noted(2)])
        await published_up_to(database, 2)
    assert [message_id for message_id, _, _ in await on_nats(fresh_nats_server, 2)] == ["1.1", "2.2"]
