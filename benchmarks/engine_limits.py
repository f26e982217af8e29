"""The engine where it is hard: a slow disk, a busy CPU, long histories, wide fan-outs, everything at once.

    uv run python benchmarks/engine_limits.py [--database sqlite|postgresql] [--only disk,cpu,…] [--seconds 5]

disk     W1 to W4 of `engine.py` with 10 ms added to every commit. SQLite: the commits of this process sleep first.
         PostgreSQL: `commit_delay` with `commit_siblings = 0`, the server's own pause before it flushes its log.
cpu      one-step workflows beside two that keep a CPU busy: alone, with the busy step in a thread, in a process; how
         late the event loop is meanwhile
replay   a history of 1,000 steps: replayed in memory; loaded, replayed and ended after a signal to a run that had left
fan-out  a parent with 10,000 children and back
relay    W1 and W2 of `engine.py` while every event is published to NATS from the same process, as in the product: what
         is published a second, how far it falls behind, how long it takes to catch up and what that costs in memory
mixed    400 one-step runs, 40 of ten steps, 40 with a timer of 100 ms and 2 with 50 children a second, whatever the
         engine does: latency of the one-step runs
"""

import argparse
import asyncio
import contextlib
import gc
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg
import engine as speed
from engine import nothing, one_step, ten_steps
from sqlalchemy import select

from lib_events import memory
from lib_events.database import Connection, open_database
from lib_events.event_log import SCHEMA as EVENTS_SCHEMA
from lib_events.http.server import new_event_loop
from lib_events.lifecycle import running
from lib_events.nats.broker import Broker
from lib_events.nats.relay import Relay
from lib_events.nats_server import NatsServer
from lib_events.tables import event_log_state
from lib_workflows import Context, Engine, Registry, Signal, step, workflow
from lib_workflows.tables import SCHEMA
from lib_workflows.testing import export_history, replay_history
from lib_workflows.workers.residence import Limits

DISK_SECONDS = 0.01
BUSY_SECONDS = 0.05
CLIENTS = 200
STEPS = 1_000
CHILDREN = 10_000
REPEATS = 20
PAGE = os.sysconf("SC_PAGE_SIZE")

go_on = Signal("go-on", int)


def keep_busy(seconds: float) -> int:
    end = time.perf_counter() + seconds
    rounds = 0
    while time.perf_counter() < end:
        rounds += 1
    return rounds


@step
def busy_in_a_thread(seconds: float) -> int:
    return keep_busy(seconds)


@step(process=True)
def busy_in_a_process(seconds: float) -> int:
    return keep_busy(seconds)


@workflow(name="busy-in-a-thread")
async def thread_flow(ctx: Context, seconds: float) -> int:
    return await ctx.step(busy_in_a_thread, seconds)


@workflow(name="busy-in-a-process")
async def process_flow(ctx: Context, seconds: float) -> int:
    return await ctx.step(busy_in_a_process, seconds)


@workflow(name="thousand-steps")
async def thousand_steps(ctx: Context, number: int) -> int:
    for _ in range(STEPS):
        number = await ctx.step(nothing, number)
    await ctx.wait_signal(go_on)
    return number


@workflow(name="ten-thousand-children")
async def ten_thousand_children(ctx: Context) -> int:
    return sum(await ctx.gather(*(ctx.child(one_step, number) for number in range(CHILDREN))))


@workflow(name="napper")
async def napper(ctx: Context, number: int) -> int:
    await ctx.sleep(0.1)
    return await ctx.step(nothing, number)


@workflow(name="fifty-children")
async def fifty_children(ctx: Context) -> int:
    return sum(await ctx.gather(*(ctx.child(one_step, number) for number in range(50))))


WORKFLOWS = [
    *speed.WORKFLOWS, thread_flow, process_flow, thousand_steps, ten_thousand_children, napper, fifty_children,
]  # fmt: skip


def percentiles(took: list[float]) -> str:
    cuts = statistics.quantiles(took, n=100)
    return f"{cuts[49]:.2f} ms p50  {cuts[98]:.2f} ms p99"


# A slow disk


class SlowCommits:
    """The writer's connection, with a pause before each COMMIT; it is made where only the disk is waited for."""

    def __init__(self, raw: object) -> None:
        self._raw = raw

    def __getattr__(self, name: str) -> object:
        return getattr(self._raw, name)

    def execute(self, statement: str, *parameters: object) -> object:
        if statement == "COMMIT":
            time.sleep(DISK_SECONDS)  # the slow disk
        return self._raw.execute(statement, *parameters)


@contextlib.asynccontextmanager
async def slow_disk(url: str) -> AsyncIterator[None]:
    """For PostgreSQL: slower for connections that are opened meanwhile."""
    if url.startswith("sqlite"):
        yield
        return
    server = await asyncpg.connect(url.partition("schema=")[0].rstrip("?&"))
    database = await server.fetchval("SELECT current_database()")
    try:
        await server.execute(f"ALTER DATABASE {database} SET commit_delay = {int(DISK_SECONDS * 1e6)}")
        await server.execute(f"ALTER DATABASE {database} SET commit_siblings = 0")
        yield
    finally:
        await server.execute(f"ALTER DATABASE {database} RESET ALL")
        await server.close()


async def disk(url: str, seconds: float) -> None:
    async with slow_disk(url), opened(url) as engine:
        if url.startswith("sqlite"):
            engine.database._raw = SlowCommits(engine.database._raw)
        for name, workload in speed.WORKLOADS.items():
            print(f"disk     {name}  {await workload(engine, seconds)}", flush=True)


# A busy CPU


async def lateness(late: list[float]) -> None:
    """How many milliseconds later than asked for the loop comes back."""
    while True:
        begin = time.perf_counter()
        await asyncio.sleep(0.005)  # what is asked for
        late.append((time.perf_counter() - begin - 0.005) * 1_000)


async def cpu(url: str, seconds: float) -> None:
    for title, flow in (("alone", None), ("thread", thread_flow), ("process", process_flow)):
        async with opened(url) as engine:
            late: list[float] = []
            end = time.perf_counter() + seconds
            beside = [asyncio.create_task(lateness(late))]
            if flow is not None:
                beside += [asyncio.create_task(busy_client(engine, flow, end)) for _ in range(2)]
            rate = await speed.closed_loop(engine, one_step, seconds, clients=CLIENTS)
            beside[0].cancel()
            rounds = sum(await asyncio.gather(*beside[1:]))
            print(f"cpu      {title:8} {rate:8,.0f} workflows/s, loop late {percentiles(late)}, {rounds:,} busy rounds")


async def busy_client(engine: Engine, flow: speed.Workflow[float, int], end: float) -> int:
    rounds = 0
    while time.perf_counter() < end:
        rounds += await (await engine.start(flow, BUSY_SECONDS)).result()
    return rounds


# A long history


async def replay(url: str, _seconds: float) -> None:
    async with opened(url, Limits(idle_seconds=0.0)) as engine:
        offline, online = [], []
        for _ in range(REPEATS):
            handle = await engine.start(thousand_steps, 1)
            while await handle.status() != "waiting":
                await asyncio.sleep(0.01)  # between two looks
            await leave(engine)
            exported = await export_history(engine, handle.id)
            gc.collect()
            begin = time.perf_counter()
            replay_history(thousand_steps, exported)
            offline.append((time.perf_counter() - begin) * 1_000)
            begin = time.perf_counter()
            await handle.signal(go_on, 1)
            await handle.result(timeout=30)
            online.append((time.perf_counter() - begin) * 1_000)
        print(f"replay   in memory {statistics.median(offline):.2f} ms, {STEPS:,} steps, median of {REPEATS}")
        print(f"replay   signal, load, replay and end {statistics.median(online):.2f} ms, {STEPS:,} steps")


async def leave(engine: Engine) -> None:
    """Let every resting run leave memory now."""
    while engine.residence.executors:
        engine.residence.evict_idle()
        await asyncio.sleep(0.01)  # between two looks


# Many children


async def fan_out(url: str, seconds: float) -> None:
    async with opened(url) as engine:
        took = await speed.one_at_a_time(engine, ten_thousand_children, seconds=seconds)
        print(f"fan-out  {statistics.median(took):,.0f} ms for {CHILDREN:,} children, median of {len(took)}")


# Everything at once


async def mixed(url: str, seconds: float) -> None:
    took: list[float] = []

    async def timed(flow: speed.Workflow[int, int]) -> None:
        begin = time.perf_counter()
        await (await engine.start(flow, 1)).result()
        if flow is one_step:
            took.append((time.perf_counter() - begin) * 1_000)

    async def parent() -> None:
        await (await engine.start(fifty_children)).result()

    async with opened(url) as engine, asyncio.TaskGroup() as group:
        await asyncio.gather(
            every(1 / 400, seconds, lambda: timed(one_step), group),
            every(1 / 40, seconds, lambda: timed(ten_steps), group),
            every(1 / 40, seconds, lambda: timed(napper), group),
            every(1 / 2, seconds, parent, group),
        )
    print(f"mixed    {percentiles(took)} of {len(took):,} one-step runs")


# Publishing beside


@contextlib.asynccontextmanager
async def published(url: str) -> AsyncIterator[Engine]:
    """An engine whose events go to a NATS server, by a relay in the same process."""
    with tempfile.TemporaryDirectory(prefix="evs-benchmark-nats-") as found:
        async with NatsServer(Path(found)) as server:
            database = await open_database(url, service="app-svc", schemas=[EVENTS_SCHEMA, SCHEMA])
            broker = Broker(server.url, service="app-svc", seed_file=Path(found) / "secrets" / "nats-app-svc.nk")
            async with running(broker, Relay(database, broker)):
                await broker.wait_connected()
                async with Engine(database, Registry.of(WORKFLOWS)) as engine:
                    await speed.closed_loop(engine, one_step, 0.5)
                    yield engine
            await database.close()


def log_state(connection: Connection) -> tuple[int, int]:
    """How far events are placed, and published."""
    row = connection.execute(select(event_log_state)).one()
    return row.placed_position, row.published_position


async def caught_up(engine: Engine) -> int:
    """Wait until everything is published; returns how far that is."""
    while (state := await engine.database.read(log_state))[0] > state[1]:
        await asyncio.sleep(0.01)  # between two looks
    return state[1]


async def relay(url: str, seconds: float) -> None:
    async with published(url) as engine:
        for name, flow in (("W1", one_step), ("W2", ten_steps)):
            behind: list[int] = []

            async def watch(behind: list[int]) -> None:
                while True:
                    await asyncio.sleep(0.1)  # between two looks
                    placed, done = await engine.database.read(log_state)
                    behind.append(placed - done)

            start, before = await caught_up(engine), resident_megabytes()
            watching = asyncio.create_task(watch(behind))
            began = time.perf_counter()
            speed_of_runs = await speed.closed_loop(engine, flow, seconds)
            ended = time.perf_counter()
            watching.cancel()
            events = await caught_up(engine) - start
            took = time.perf_counter() - ended
            speeds = f"{speed_of_runs:,.0f} runs/s, {events / (ended + took - began):,.0f} events/s published"
            lag = f"at most {max(behind):,} behind, caught up after {took:.2f} s"
            print(f"relay    {name} {speeds}, {lag}, {resident_megabytes() - before:+.0f} MB")


def resident_megabytes() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 1e6


async def every(period: float, seconds: float, work: Callable[[], Awaitable[None]], group: asyncio.TaskGroup) -> None:
    """Begin `work` once a period, however long it takes."""
    begin = time.perf_counter()
    for number in range(int(seconds / period)):
        await asyncio.sleep(max(0.0, begin + number * period - time.perf_counter()))  # the load's pace
        group.create_task(work())


@contextlib.asynccontextmanager
async def opened(url: str, limits: Limits | None = None) -> AsyncIterator[Engine]:
    """An engine that is warm."""
    async with Engine.open(url, WORKFLOWS, limits=limits) as engine:
        await speed.closed_loop(engine, one_step, 0.5)
        gc.collect()
        gc.freeze()
        yield engine
    gc.unfreeze()


LIMITS: dict[str, Callable[[str, float], Awaitable[None]]] = {
    "disk": disk,
    "cpu": cpu,
    "replay": replay,
    "fan-out": fan_out,
    "relay": relay,
    "mixed": mixed,
}


async def measure(url: str, names: list[str], seconds: float) -> None:
    for name in names:
        await LIMITS[name](url, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description="The engine where it is hard.")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], action="append")
    parser.add_argument("--only", default=",".join(LIMITS))
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    memory.settle()
    for kind in options.database or ["sqlite", "postgresql"]:
        print(kind)
        with tempfile.TemporaryDirectory(prefix="evs-benchmark-") as folder:
            url = f"sqlite:///{folder}/benchmark.db" if kind == "sqlite" else speed.postgresql_url()
            asyncio.run(measure(url, options.only.split(","), options.seconds), loop_factory=new_event_loop)


if __name__ == "__main__":
    main()
