"""100,000 sleeping workflows: what they weigh in memory and on disk, and how fast a restart goes on with them.

    uv run python benchmarks/engine_sleepers.py [--database sqlite|postgresql] [--sleepers 100000]

Each life of the engine is a process of its own on one database. Memory is resident memory (RSS) above that of the same
process with the engine open and one run done.

first    starts them, rests until none is in memory, stops in good order
killed   starts as many more and is killed while they are in memory (SQLite: on PostgreSQL the lease decides when)
restart  from the start of the process until a new run has a result and a sleeper that became due meanwhile has ended
resume   the same with a clock 31 days on: all are due at once, until every one has ended
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

from engine import nothing, one_step, postgresql_url
from sqlalchemy import func, select

from lib_events import memory
from lib_events.clock import SystemClock
from lib_events.database import Connection
from lib_events.http.server import new_event_loop
from lib_workflows import Context, Engine, workflow
from lib_workflows.tables import runs
from lib_workflows.workers.residence import Limits

BATCH = 1_000
SETTLE_SECONDS = 5.0
DAYS = 30
PAGE = os.sysconf("SC_PAGE_SIZE")
sleepers = select(func.count()).where(runs.c.workflow == "sleeper")


@workflow(name="sleeper")
async def sleeper(ctx: Context, number: int) -> int:
    await ctx.sleep(timedelta(days=DAYS))
    return await ctx.step(nothing, number)


@workflow(name="napper")
async def napper(ctx: Context, number: int) -> int:
    await ctx.sleep(timedelta(seconds=1))
    return await ctx.step(nothing, number)


class LaterClock(SystemClock):
    """The system's clock, when the sleepers are due."""

    def micros(self) -> int:
        return super().micros() + (DAYS + 1) * 86_400_000_000


def megabytes() -> float:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 1e6


def in_memory(engine: Engine) -> int:
    return len(engine.residence.executors)


async def put_to_sleep(engine: Engine, count: int) -> float:
    begin = time.perf_counter()
    for first in range(0, count, BATCH):
        await engine.start_many(sleeper, range(first, min(first + BATCH, count)))
    while (await engine.database.read(count_waking)) > 0:
        await asyncio.sleep(0.05)
    return time.perf_counter() - begin


def count_waking(connection: Connection) -> int:
    """How many sleepers are not asleep yet."""
    return connection.scalar(sleepers.where(runs.c.status.in_(("queued", "running"))))


def count_left(connection: Connection) -> int:
    return connection.scalar(sleepers.where(runs.c.status != "completed"))


def count_naps(connection: Connection) -> int:
    return connection.scalar(select(func.count()).where(runs.c.workflow == "napper", runs.c.status != "completed"))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.05)


async def first(engine: Engine, count: int) -> None:
    before = megabytes()
    seconds = await put_to_sleep(engine, count)
    weight, here = megabytes() - before, in_memory(engine)
    print(f"first    {count:,} asleep after {seconds:.1f} s: {weight:.0f} MB, {here:,} in memory")
    begin = time.perf_counter()
    await until(lambda: in_memory(engine) == 0)
    await asyncio.sleep(SETTLE_SECONDS)
    idle = time.perf_counter() - begin
    print(f"first    {megabytes() - before:.1f} MB above the empty process {idle:.0f} s later, with none in memory")
    await engine.start(napper, 1)


async def killed(engine: Engine, count: int) -> None:
    before = megabytes()
    await put_to_sleep(engine, count)
    await engine.start(napper, 1)
    print(f"killed   {megabytes() - before:.0f} MB, {in_memory(engine):,} in memory", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


async def restart(engine: Engine, _count: int) -> None:
    opened = since_start()
    await (await engine.start(one_step, 1)).result()
    ran = since_start()
    while await engine.database.read(count_naps) > 0:
        await asyncio.sleep(0.01)  # between two looks
    print(f"restart  open {opened:.2f} s, a new run done {ran:.2f} s, a due sleeper done {since_start():.2f} s")


async def resume(engine: Engine, _count: int) -> None:
    opened = since_start()
    due = await engine.database.read(count_left)
    print(f"resume   open {opened:.2f} s, {due:,} due", flush=True)
    while await engine.database.read(count_left) > 0:
        await asyncio.sleep(0.05)
    print(f"resume   all ended {since_start():.2f} s after the start of the process")


def since_start() -> float:
    return time.time() - float(os.environ["BENCH_STARTED"])


LIVES: dict[str, Callable[[Engine, int], Awaitable[None]]] = {
    "first": first,
    "killed": killed,
    "restart": restart,
    "resume": resume,
}


async def live(name: str, url: str, count: int) -> None:
    memory.load()
    # Nobody leaves before the kill; else the wait for the eviction is cut short.
    limits = Limits(idle_seconds=2 * DAYS * 86_400.0, in_memory=2 * count) if name == "killed" else Limits()
    clock = LaterClock() if name == "resume" else None
    async with Engine.open(url, [sleeper, napper, one_step], limits=limits, clock=clock) as engine:
        if name in ("first", "killed"):
            await (await engine.start(one_step, 1)).result()
        memory.settle()
        await LIVES[name](engine, count)


def main() -> None:
    parser = argparse.ArgumentParser(description="Sleeping workflows.")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--sleepers", type=int, default=100_000)
    parser.add_argument("--only", default=",".join(LIVES))
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.url:
        work = live(options.only, options.url, options.sleepers)
        asyncio.run(work, loop_factory=new_event_loop)
        return
    with tempfile.TemporaryDirectory(prefix="evs-benchmark-") as folder:
        url = f"sqlite:///{folder}/benchmark.db" if options.database == "sqlite" else postgresql_url()
        for name in options.only.split(","):
            if name == "killed" and options.database == "postgresql":
                continue
            command = [sys.executable, __file__, "--only", name, "--url", url, "--sleepers", str(options.sleepers)]
            subprocess.run(command, env=os.environ | {"BENCH_STARTED": str(time.time())}, check=False)
        if options.database == "sqlite":
            print(f"on disk  {(Path(folder) / 'benchmark.db').stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
