"""Ours, as it is in this repository, on SQLite or PostgreSQL.

Durable: an acknowledged start, each step and each result are on disk (SQLite `synchronous=FULL`, PostgreSQL
`synchronous_commit=on`). Tuning: none; uvloop and the garbage collector's thresholds as our services have them.
One process, in which the client is too; W1 and W2 with 2,000 clients. The workloads are those of `engine.py`.
"""

import asyncio
import statistics

import engine
from measure import Figures, given_url, report

from lib_events import memory
from lib_events.http.server import new_event_loop
from lib_workflows import Engine


async def main() -> None:
    memory.load()
    async with Engine.open(given_url(), engine.WORKFLOWS) as ours:

        async def w1(seconds: float) -> Figures:
            return {"W1": await engine.closed_loop(ours, engine.one_step, seconds)}

        async def w2(seconds: float) -> Figures:
            return {"W2": 10 * await engine.closed_loop(ours, engine.ten_steps, seconds)}

        async def w3(seconds: float) -> Figures:
            cuts = statistics.quantiles(await engine.latencies(ours, seconds), n=100)
            return {"W3 p50": cuts[49], "W3 p99": cuts[98]}

        async def w4(seconds: float) -> Figures:
            return {"W4": statistics.median(await engine.fan_outs(ours, seconds))}

        await engine.closed_loop(ours, engine.one_step, 0.5)  # warm up
        memory.settle()
        await report({"W1": w1, "W2": w2, "W3": w3, "W4": w4})


if __name__ == "__main__":
    asyncio.run(main(), loop_factory=new_event_loop)
