"""What goes wrong on the way of an event: killed processes, lost and full disks, messages doubled and shuffled."""

import asyncio
import os
import random
import shutil
import signal
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from pydantic import BaseModel
from sqlalchemy import select

from lib_events import nats_server as nats_server_module
from lib_events.clock import to_datetime
from lib_events.database import open_database
from lib_events.event import Event, EventRegistry, EventType
from lib_events.event_log import SCHEMA, head, read_after
from lib_events.lifecycle import running
from lib_events.nats.broker import BROKER_ERRORS, Broker, Message
from lib_events.nats.importer import Importer
from lib_events.nats.relay import Relay
from lib_events.nats_server import NatsServer
from lib_events.tables import events
from lib_events.testing import FakeClock, wait_until
from lib_events.testing.forks import Forks

FORKS = Forks(f"{Path(__file__).with_name('service_process.py')}:serve")


class Note(BaseModel):
    number: int
    text: str = ""


Noted = EventType("test.noted", Note)


def noted(number, *, source="/app-svc", text="", time=None):
    return Event.of(Noted, Note(number=number, text=text), source=source, time=time)


@pytest_asyncio.fixture
async def database(database_url):
    opened = await open_database(database_url, service="app-svc", schemas=[SCHEMA])
    yield opened
    await opened.close()


def connect(server, service="app-svc"):
    return Broker(server.url, service=service, seed_file=server.credentials(service))


async def log_of(database, event_type="test.noted"):
    page = await database.read(lambda connection: read_after(connection, 0, limit=1_000_000))
    return [placed.event for placed in page.events if placed.event.type == event_type]


async def numbers(database, event_type="test.noted"):
    return [event.data["number"] for event in await log_of(database, event_type)]


class Killable:
    """A service in a process of its own."""

    def __init__(self, role, service, database_url, server):
        self._arguments = [role, database_url, server.url, str(server.credentials(service))]
        self.start()

    def start(self):
        self.process = FORKS.start(*self._arguments, env=os.environ)

    def kill(self):
        self.process.kill()
        self.process.wait(20)


@asynccontextmanager
async def two_services(urls, server):
    services = [Killable("publish", "app-svc", urls[0], server), Killable("consume", "auth-svc", urls[1], server)]
    try:
        yield services
    finally:
        for service in services:
            service.kill()


@pytest_asyncio.fixture
async def two_urls(database_url, tmp_path):
    """Databases with their tables: the services begin side by side."""
    places = (f"sqlite:///{tmp_path}/", ".db") if database_url.startswith("sqlite") else (f"{database_url}_", "")
    urls = {name: name.join(places) for name in ("app", "auth")}
    for name, url in urls.items():
        await (await open_database(url, service=f"{name}-svc", schemas=[SCHEMA])).close()
    return list(urls.values())


@pytest.mark.parametrize("seed", [1, 2])
async def test_whoever_is_killed_under_load_every_event_arrives_in_order_and_has_its_effect_once(
    two_urls, fresh_nats_server, seed
):
    choose = random.Random(seed)
    async with two_services(two_urls, fresh_nats_server) as services:
        for victim in (*choose.sample([*services, None], 3), choose.choice([*services, None])):
            await grown(fresh_nats_server)
            await asyncio.sleep(choose.uniform(0, 0.3))  # a random point
            if victim is None:
                os.kill(fresh_nats_server.pid, signal.SIGKILL)
                await wait_until(lambda: fresh_nats_server.pid)
            else:
                victim.kill()
                victim.start()
        await grown(fresh_nats_server)
        services[0].kill()
        app = await open_database(two_urls[0], service="app-svc", schemas=[SCHEMA])
        async with connect(fresh_nats_server) as broker, running(Relay(app, broker)):
            await wait_until(lambda: app.read(all_placed))
            written = await numbers(app)
            await drained(two_urls[1], services[1], len(written))
        auth = await open_database(two_urls[1], service="auth-svc", schemas=[SCHEMA])
        try:
            assert len(written) > 50
            assert sorted(written) == list(range(len(written)))
            assert await numbers(auth) == written
            assert await numbers(auth, "test.handled") == written
        finally:
            await app.close()
            await auth.close()


def all_placed(connection):
    return connection.scalar(select(events.c.sequence).where(events.c.last_position.is_(None)).limit(1)) is None


async def grown(server):
    """Wait until something more was published."""
    async with connect(server) as broker:
        before = []

        async def more():
            with suppress(*BROKER_ERRORS):
                await broker.wait_connected()
                before.append((await broker.stream_state()).last_sequence)
            return before and before[-1] > before[0] + 20

        await wait_until(more, timeout=30)


async def drained(url, service, count):
    """Wait until the consumer has handled everything, looking at it by killing it: a SQLite file has one owner."""
    for seconds in (2, 4, 8, 16, 32):
        await asyncio.sleep(seconds)  # it works undisturbed for so long: looking at its file means ending it
        service.kill()
        database = await open_database(url, service="auth-svc", schemas=[SCHEMA])
        handled = len(await numbers(database, "test.handled"))
        await database.close()
        if handled >= count:
            return
        service.start()
    raise TimeoutError(f"{handled} of {count} events were handled")


async def stream_ends_with(server, message_id):
    async with connect(server) as broker:

        async def complete():
            try:
                await broker.wait_connected()
                return (await broker.stream_state()).last_message_id == message_id
            except BROKER_ERRORS:
                return False

        await wait_until(complete, timeout=40)
        return (await broker.stream_state()).last_sequence


@pytest.mark.parametrize("killed", [True, False])
async def test_a_store_deleted_under_the_running_broker_is_made_and_filled_again(database, fresh_nats_server, killed):
    async with connect(fresh_nats_server) as broker, running(Relay(database, broker)):
        await database.write(events=[noted(number) for number in range(50)])
        await stream_ends_with(fresh_nats_server, "1.50")
        shutil.rmtree(fresh_nats_server.folder / "jetstream")
        if killed:
            os.kill(fresh_nats_server.pid, signal.SIGKILL)  # what it still held open is gone with it
        await database.write(events=[noted(number) for number in range(50, 60)])
        assert await stream_ends_with(fresh_nats_server, "1.60") == 60


async def test_a_full_disk_of_the_broker_holds_up_only_what_goes_there(database, tmp_path, monkeypatch):
    configuration = nats_server_module._configuration

    def small(*arguments):
        found = configuration(*arguments)
        found["jetstream"]["max_file_store"] = 300_000
        return found

    monkeypatch.setattr(nats_server_module, "_configuration", small)
    server = NatsServer(tmp_path)
    async with server, connect(server) as broker, running(Relay(database, broker)):
        for number in range(100):
            await database.write(events=[noted(number, text="x" * 5_000)])
        await wait_until(lambda: database.read(lambda connection: head(connection).position == 100))
        assert (await broker.stream_state()).last_sequence < 100
        monkeypatch.undo()
        await server.stop()
        await server.start()
        assert await stream_ends_with(server, "1.100") == 100


async def test_a_clock_that_jumps_backwards_changes_no_order(database, fresh_nats_server):
    clock = FakeClock()
    async with connect(fresh_nats_server) as broker, running(Relay(database, broker)):
        for number in range(20):
            await database.write(events=[noted(number, time=to_datetime(clock.micros()))])
            clock.advance(timedelta(hours=-1))
        assert await stream_ends_with(fresh_nats_server, "1.20") == 20
    assert await numbers(database) == list(range(20))


@pytest.mark.parametrize("seed", range(3))
async def test_messages_doubled_and_shuffled_on_the_way_are_imported_once_each(database_url, fresh_nats_server, seed):
    choose = random.Random(seed)
    database = await open_database(database_url, service="auth-svc", schemas=[SCHEMA])
    sent = [noted(number) for number in range(60)]
    deliveries = sent + choose.choices(sent, k=60)
    choose.shuffle(deliveries)
    async with connect(fresh_nats_server, "auth-svc") as auth, connect(fresh_nats_server) as app:
        importer = Importer(database, auth, sources=["app-svc"], types=["test.*"], registry=EventRegistry(Noted))
        async with running(importer, Relay(database, None)):
            await app.wait_connected()
            for start in range(0, len(deliveries), 10):
                await app.publish_batch(
                    [
                        Message("events.app-svc.test.noted", f"{seed}.{start + index}", event.to_json(), "text/plain")
                        for index, event in enumerate(deliveries[start : start + 10])
                    ]
                )
            await wait_until(lambda: _has(database, 60))
    first_seen = list(dict.fromkeys(event.data["number"] for event in deliveries))
    assert await numbers(database) == first_seen
    await database.close()


async def _has(database, count):
    return len(await numbers(database)) >= count


async def test_an_acknowledgement_that_is_lost_brings_the_message_again_and_it_counts_once(
    database_url, fresh_nats_server, monkeypatch
):
    database = await open_database(database_url, service="auth-svc", schemas=[SCHEMA])
    lost = []

    async def lose(message):
        lost.append(message)

    async with connect(fresh_nats_server) as app:
        await app.wait_connected()
        for life in range(3):
            with monkeypatch.context() as patch:
                patch.setattr("nats.aio.msg.Msg.ack", lose)
                async with connect(fresh_nats_server, "auth-svc") as auth:
                    importer = Importer(
                        database, auth, sources=["app-svc"], types=["test.*"], registry=EventRegistry(Noted)
                    )
                    async with running(importer, Relay(database, None)):
                        event = noted(life)
                        await app.publish_batch(
                            [Message(f"events.app-svc.{event.type}", f"1.{life}", event.to_json(), "text/plain")]
                        )
                        await wait_until(lambda count=life + 1: _has(database, count))
    assert len(lost) >= 3
    assert await numbers(database) == [0, 1, 2]
    await database.close()
