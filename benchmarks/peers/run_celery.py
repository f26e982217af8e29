"""Celery 5.7.0 on Redis with `appendfsync always`.

Durable: a message and a result are on disk when Redis has answered; late acknowledgement, so a task of a worker that
died is delivered again. It has tasks, no workflows with a history: W2 is a chain of ten, W4 a chord.
Tuning: a worker process with 4 threads (as fast as prefork here), prefetch 64 for each, `-O fair`, no gossip, mingle,
heartbeat or events; results in the same Redis; 8 client threads, since its client is synchronous.
"""

import asyncio
import sys

from celery import Celery, chain, chord
from measure import (
    BATCH,
    CHAINS,
    Figures,
    fan_out,
    from_threads,
    given_tally,
    given_url,
    latency,
    report,
    through_queue,
    worker,
)

URL = given_url()

app = Celery("run_celery", broker=URL, backend=URL)
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=64,
    worker_send_task_events=False,
    broker_pool_limit=10,
    result_expires=3_600,
    worker_hijack_root_logger=False,
)
tally = given_tally()


@app.task
def nothing(number: int) -> int:
    tally.add()
    return number


@app.task
def step(number: int) -> int:
    return number


@app.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


def send_ten() -> None:
    chain(step.s(1), *(step.s() for _ in range(8)), nothing.s()).apply_async()


def run_one() -> None:
    nothing.delay(1).get(timeout=10)


def run_chord() -> None:
    chord([step.s(number) for number in range(1_000)], total.s()).delay().get(timeout=120)


async def main() -> None:
    flags = "--pool=threads --concurrency=4 -O fair --without-gossip --without-mingle --without-heartbeat -l ERROR"
    command = [sys.executable, "-m", "celery", "-A", "run_celery", "-q", "worker", *flags.split()]
    with worker(command) as ended:

        async def w1(seconds: float) -> Figures:
            return {"W1": await through_queue(lambda n: from_threads(lambda: nothing.delay(1), n), ended, seconds)}

        async def w2(seconds: float) -> Figures:
            return {"W2": 10 * await through_queue(lambda n: from_threads(send_ten, n), ended, seconds, backlog=CHAINS)}

        async def w3(seconds: float) -> Figures:
            return await latency(lambda: asyncio.to_thread(run_one), seconds)

        async def w4(seconds: float) -> Figures:
            return await fan_out(lambda: asyncio.to_thread(run_chord), seconds)

        await from_threads(lambda: nothing.delay(1), BATCH)  # warm up
        await ended.reach(BATCH)
        await report({"W1": w1, "W2": w2, "W3": w3, "W4": w4})


if __name__ == "__main__":
    asyncio.run(main())
