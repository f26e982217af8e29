"""Procrastinate 3.10.0 on PostgreSQL.

Durable: a job is committed when it is deferred and when it ends. It has jobs, no workflows: no history that could be
replayed, no results, and so no W2. In W3 and W4 the client sees the end as soon as the last job's function has run,
which is before its commit.
Tuning: a worker process beside the client, concurrency 20, pools of 10, jobs deferred in batches of 100, uvloop, no
logging. LISTEN/NOTIFY, and a poll every 20 ms instead of every 5 s: a notification that comes while the worker looks
for jobs may be missed, and such a job would wait for the poll.
"""

import asyncio
import logging
import sys

import uvloop
from measure import BATCH, Figures, Tally, fan_out, given_tally, given_url, latency, report, through_queue, worker
from procrastinate import App, PsycopgConnector

POLL_SECONDS = 0.02

app = App(connector=PsycopgConnector(conninfo=given_url(), min_size=10, max_size=10))
tally = given_tally()


@app.task(name="nothing")
async def nothing(number: int) -> int:
    tally.add()
    return number


@app.task(name="thousand_children")
async def thousand_children() -> None:
    await nothing.batch_defer_async(*({"number": number} for number in range(1_000)))


async def work() -> None:
    async with app.open_async():
        await app.run_worker_async(concurrency=20, fetch_job_polling_interval=POLL_SECONDS)


async def main() -> None:
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        with worker([sys.executable, __file__, "work"]) as ended:
            await compare(ended)


async def compare(ended: Tally) -> None:
    async def send(count: int) -> None:
        await nothing.batch_defer_async(*({"number": number} for number in range(count)))

    async def run_one() -> None:
        before = ended.count
        await nothing.defer_async(number=1)
        await ended.reach(before + 1)

    async def run_parent() -> None:
        before = ended.count
        await thousand_children.defer_async()
        await ended.reach(before + 1_000)

    async def w1(seconds: float) -> Figures:
        return {"W1": await through_queue(send, ended, seconds)}

    async def w3(seconds: float) -> Figures:
        return await latency(run_one, seconds)

    async def w4(seconds: float) -> Figures:
        return await fan_out(run_parent, seconds)

    await send(BATCH)  # warm up
    await ended.reach(BATCH)
    await report({"W1": w1, "W3": w3, "W4": w4})


if __name__ == "__main__":
    logging.getLogger("procrastinate").setLevel(logging.ERROR)
    asyncio.run(work() if sys.argv[1] == "work" else main(), loop_factory=uvloop.new_event_loop)
