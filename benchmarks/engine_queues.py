"""Queues with limits: how many runs a second go through a queue of few slots while tens of thousands wait.

    uv run python benchmarks/engine_queues.py [--database sqlite|postgresql] [--waiting 20000] [--seconds 5]

one, ten, hundred   one-step runs through a queue of so many slots
keys                the same through ten slots, where the runs of a thousand customers take turns
crowd               one slot in each of fifty queues, in all of which runs wait
"""

import argparse
import asyncio
import tempfile
import time
from itertools import batched

from engine import nothing, postgresql_url
from pydantic import BaseModel
from sqlalchemy import func, select

from lib_events.database import Connection
from lib_events.http.server import new_event_loop
from lib_workflows import Context, Engine, Queue, QueueLimits, workflow
from lib_workflows.runs.commands import StartRequest
from lib_workflows.tables import runs

BATCH = 500
CUSTOMERS = 1_000
CROWD = 50


class Order(BaseModel):
    customer: int


@workflow(name="narrow", queue="narrow")
async def narrow(ctx: Context, number: int) -> int:
    return await ctx.step(nothing, number)


@workflow(name="shared", queue=Queue("shared", concurrency=10, key="customer"))
async def shared(ctx: Context, order: Order) -> int:
    return await ctx.step(nothing, order.customer)


ended = select(func.count()).where(runs.c.ended_at.is_not(None))


def count_ended(connection: Connection) -> int:
    return connection.scalar(ended) or 0


async def fill(engine: Engine, requests: list[StartRequest]) -> None:
    for batch in batched(requests, BATCH, strict=False):
        await engine.submit_many(batch)


async def through(engine: Engine, queues: list[str], limits: QueueLimits | None, seconds: float) -> str:
    """How many runs end in a second from when the queues are opened, and what each costs this process."""
    for queue in queues:
        if limits is not None:
            await engine.queues.limit(queue, limits)
        await engine.queues.resume(queue)
    await asyncio.sleep(0.5)  # what the opening itself costs is no rate
    before, begin, cpu = await engine.database.read(count_ended), time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)  # what goes through in this time is counted
    found = await engine.database.read(count_ended) - before
    cpu, took = time.process_time() - cpu, time.perf_counter() - begin
    for queue in queues:
        await engine.queues.pause(queue)
    return f"{found / took:8,.0f}/s  {cpu * 1_000 / max(1, found):6.2f} ms CPU"


async def measure(url: str, waiting: int, seconds: float) -> None:
    crowd = [f"crowd-{number}" for number in range(CROWD)]
    async with Engine.open(url, [narrow, shared]) as engine:
        for queue in ("narrow", "shared", *crowd):
            await engine.queues.pause(queue)
        numbers = [narrow.encode_input((number,)) for number in range(waiting)]
        orders = [shared.encode_input((Order(customer=number % CUSTOMERS),)) for number in range(waiting)]
        await fill(engine, [engine.request(narrow, number) for number in numbers])
        await fill(engine, [engine.request(shared, order) for order in orders])
        await fill(engine, [engine.request(narrow, each, queue=crowd[at % CROWD]) for at, each in enumerate(numbers)])
        for name, slots in (("one", 1), ("ten", 10), ("hundred", 100)):
            found = await through(engine, ["narrow"], QueueLimits(concurrency=slots), seconds)
            print(f"{name:8} {found}", flush=True)
        print(f"keys     {await through(engine, ['shared'], None, seconds)}", flush=True)
        print(f"crowd    {await through(engine, crowd, QueueLimits(concurrency=1), seconds)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Queues with limits.")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], action="append")
    parser.add_argument("--waiting", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    for kind in options.database or ["sqlite", "postgresql"]:
        print(kind)
        with tempfile.TemporaryDirectory(prefix="evs-benchmark-") as folder:
            url = f"sqlite:///{folder}/benchmark.db" if kind == "sqlite" else postgresql_url()
            asyncio.run(measure(url, options.waiting, options.seconds), loop_factory=new_event_loop)


if __name__ == "__main__":
    main()
