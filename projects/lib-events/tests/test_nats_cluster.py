"""Three brokers as one cluster: whatever happens to one of them, nothing is lost, and it goes on."""

import asyncio
import itertools
from contextlib import asynccontextmanager, suppress

import pytest
import pytest_asyncio
from pydantic import BaseModel

from lib_events.database import open_database
from lib_events.event import Event, EventRegistry, EventType
from lib_events.event_log import SCHEMA, head, read_after
from lib_events.lifecycle import running
from lib_events.nats.broker import BROKER_ERRORS, Broker
from lib_events.nats.importer import Importer
from lib_events.nats.relay import Relay
from lib_events.testing import wait_until

# nats-py leaves an attempt to connect to a server that hangs to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <StreamWriter:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

# NATS elects a new leader 4 to 9 s after the old one fell silent; what is ours adds little to that.
RESUME_SECONDS = 60.0  # how long it takes is measured elsewhere; here it must happen, however busy the machine is


class Note(BaseModel):
    number: int


Noted = EventType("evs.run.noted", Note)


class Path:
    """Two services with a database each, and everything on the way of an event from one to the other."""

    def __init__(self, cluster, app, auth, broker):
        self.cluster, self.app, self.auth, self.broker = cluster, app, auth, broker
        self._numbers = itertools.count()
        self.written = 0

    async def write(self, count):
        numbers = [next(self._numbers) for _ in range(count)]
        events = [
            Event.of(Noted, Note(number=number), source="/app-svc", subject=str(number % 7)) for number in numbers
        ]
        await asyncio.gather(*(self.app.write(events=[event]) for event in events))
        self.written += count

    async def arrived(self):
        """How many arrived; they are in order and each came once."""
        page = await self.auth.read(lambda connection: read_after(connection, 0, limit=100_000))
        numbers = [placed.event.data["number"] for placed in page.events]
        assert numbers == list(range(len(numbers)))
        return len(numbers)

    async def count(self):
        """How many arrived."""
        return (await self.auth.read(head)).position

    async def all_arrived(self, within=60.0):
        async def complete():
            return await self.count() >= self.written

        await wait_until(complete, timeout=within)
        assert await self.arrived() == self.written

    async def goes_on(self, by, within=RESUME_SECONDS):
        """Wait until so many more have arrived."""
        before = await self.count()

        async def more():
            return await self.count() > before + by

        await wait_until(more, timeout=within)

    async def leader(self):
        """The node that leads the stream."""

        async def known():
            with suppress(*BROKER_ERRORS):
                info = await self.broker._jetstream().stream_info("events-app-svc")
                return info.cluster.leader

        return int((await wait_until(known, timeout=30)).removeprefix("node-"))

    @asynccontextmanager
    async def load(self):
        """Publish all the while inside the block."""

        async def go_on():
            while True:
                await self.write(20)
                await asyncio.sleep(0.05)  # an even load, which leaves the three brokers their share of the cores

        task = asyncio.create_task(go_on())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            # What was on its way when we stopped may be saved or not: all of it is behind this one.
            await self.app.transact(lambda connection: None)
            page = await self.app.read(lambda connection: read_after(connection, 0, limit=100_000))
            self.written = len(page.events)
            self._numbers = itertools.count(self.written)


@pytest_asyncio.fixture
async def path(nats_cluster, tmp_path):
    app, auth = [
        await open_database(f"sqlite:///{tmp_path}/{name}.db", service=name, schemas=[SCHEMA])
        for name in ("app-svc", "auth-svc")
    ]
    app_broker, auth_broker = (Broker(nats_cluster.access(name), service=name) for name in ("app-svc", "auth-svc"))
    importer = Importer(auth, auth_broker, sources=["app-svc"], types=["evs.run.*"], registry=EventRegistry(Noted))
    async with running(app_broker, auth_broker, Relay(app, app_broker), Relay(auth, None), importer):
        made = Path(nats_cluster, app, auth, app_broker)
        await made.write(100)
        await made.all_arrived()
        yield made
    await app.close()
    await auth.close()


async def test_the_leader_killed_under_load_loses_nothing_and_publishing_never_waits(path):
    loop = asyncio.get_running_loop()
    node = await path.leader()
    async with path.load():
        path.cluster.kill_node(node)
        began, before = loop.time(), path.written
        await path.goes_on(200)
        assert path.written > before + 20 * (loop.time() - began), "services go on committing meanwhile"
    await path.all_arrived()
    path.cluster.start_node(node)
    await path.write(50)
    await path.all_arrived()


async def test_all_three_killed_and_started_again_lose_nothing(path):
    async with path.load():
        for node in range(3):
            path.cluster.kill_node(node)
        await path.write(200)
        for node in range(3):
            path.cluster.start_node(node)
        await path.leader()
    await path.all_arrived(within=60)


@pytest.mark.parametrize("leads", [True, False], ids=["the leader", "a follower"])
async def test_a_node_that_hangs_holds_nothing_up_for_long(path, leads):
    leader = await path.leader()
    node = leader if leads else (leader + 1) % 3
    async with path.load():
        path.cluster.freeze_node(node)
        await path.goes_on(500)
        path.cluster.thaw_node(node)
    await path.all_arrived(within=60)
