"""Events into workflows: how fast runs begin to wait, events reach those that wait, and events start runs.

    uv run python benchmarks/engine_events.py [--database sqlite|postgresql] [--runs 2000] [--rounds 3]

wait     runs started, a hundred in a commit, until every one of them is registered as waiting for an event of its own
deliver  those events published, a hundred in a commit, until every run has its result
trigger  events published, a hundred in a commit, until the runs that they start have ended
idle     one run that waits and one event at a time: from the commit of the event to the run's result
crowded  the same while 50,000 other runs wait for events of their own
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from itertools import batched

from engine import nothing, postgresql_url
from pydantic import BaseModel
from sqlalchemy import Select, func, select

from lib_events import memory
from lib_events.event import Event, EventType
from lib_events.http.server import new_event_loop
from lib_workflows import Context, Engine, workflow
from lib_workflows.tables import event_waits, runs

BATCH = 100
IDLE_EVENTS = 200
CROWD = 50_000


class Parcel(BaseModel):
    number: int


Arrived = EventType("benchmark.arrived", Parcel)
Ordered = EventType("benchmark.ordered", Parcel)


@workflow(name="receiving")
async def receiving(ctx: Context, number: int) -> int:
    return (await ctx.wait_event(Arrived, {"number": number})).number


@workflow(name="sending", on=Ordered)
async def sending(ctx: Context, parcel: Parcel) -> int:
    return await ctx.step(nothing, parcel.number)


waiting = select(func.count()).select_from(event_waits)
sent = select(func.count()).where(runs.c.workflow == "sending", runs.c.status == "completed")


async def until(engine: Engine, query: Select[tuple[int]], count: int) -> None:
    while await engine.database.read(lambda connection: connection.scalar(query)) != count:
        await asyncio.sleep(0.01)  # between two looks


async def publish(engine: Engine, event_type: EventType[Parcel], numbers: range) -> None:
    for batch in batched(numbers, BATCH, strict=False):
        events = [Event.of(event_type, Parcel(number=number), source="/benchmark") for number in batch]
        await engine.database.transact(lambda connection, events=events: connection.publish(*events))


async def rate(count: int, work: Awaitable[object]) -> float:
    begin = time.perf_counter()
    await work
    return count / (time.perf_counter() - begin)


async def one_round(engine: Engine, numbers: range, already_sent: int) -> list[float]:
    handles = []

    async def wait() -> None:
        for batch in batched(numbers, BATCH, strict=False):
            handles.extend(await engine.start_many(receiving, batch))
        await until(engine, waiting, len(numbers))

    async def deliver() -> None:
        await publish(engine, Arrived, numbers)
        await asyncio.gather(*(handle.result() for handle in handles))

    async def trigger() -> None:
        await publish(engine, Ordered, numbers)
        await until(engine, sent, already_sent + len(numbers))

    works: list[Callable[[], Awaitable[None]]] = [wait, deliver, trigger]
    return [await rate(len(numbers), work()) for work in works]


async def idle(engine: Engine, others: int = 0) -> list[float]:
    took = []
    for number in range(-IDLE_EVENTS, 0):
        handle = await engine.start(receiving, number)
        await until(engine, waiting, others + 1)
        await publish(engine, Arrived, range(number, number + 1))
        begin = time.perf_counter()
        await handle.result()
        took.append((time.perf_counter() - begin) * 1_000)
    return took


async def measure(url: str, count: int, rounds: int) -> None:
    async with Engine.open(url, [receiving, sending]) as engine:
        await idle(engine)
        memory.settle()
        found = [await one_round(engine, range(n * count, (n + 1) * count), n * count) for n in range(rounds)]
        for name, rates in zip(("wait", "deliver", "trigger"), zip(*found, strict=True), strict=True):
            print(f"{name:8} {statistics.median(rates):8,.0f}/s", flush=True)
        print(f"idle     {percentiles(await idle(engine))}", flush=True)
        for batch in batched(range(CROWD), 10 * BATCH, strict=False):
            await engine.start_many(receiving, [CROWD * rounds + number for number in batch])
        await until(engine, waiting, CROWD)
        print(f"crowded  {percentiles(await idle(engine, CROWD))}")


def percentiles(took: list[float]) -> str:
    cuts = statistics.quantiles(took, n=100)
    return f"{cuts[49]:.1f} ms p50, {cuts[98]:.1f} ms p99"


def main() -> None:
    parser = argparse.ArgumentParser(description="Events into workflows.")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], action="append")
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    for kind in options.database or ["sqlite", "postgresql"]:
        print(kind)
        with tempfile.TemporaryDirectory(prefix="evs-benchmark-") as folder:
            url = f"sqlite:///{folder}/benchmark.db" if kind == "sqlite" else postgresql_url()
            asyncio.run(measure(url, options.runs, options.rounds), loop_factory=new_event_loop)


if __name__ == "__main__":
    main()
