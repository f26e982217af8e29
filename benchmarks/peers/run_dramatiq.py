"""Dramatiq 2.2.1 on Redis with `appendfsync always`.

Durable: a message and a result are on disk when Redis has answered. It has messages, no workflows: W2 is a pipeline of
ten, W4 a group with a completion callback, seen by the client as soon as the callback has run.
Tuning: a worker process beside the client, 8 threads, prefetch 200, results in the same Redis; 8 client threads, since
its client is synchronous.
"""

import asyncio
import os
import sys
import threading

os.environ.setdefault("dramatiq_queue_prefetch", "200")

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import GroupCallbacks
from dramatiq.rate_limits.backends import RedisBackend as BarrierBackend
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
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

THREADS = 8

url = given_url()
broker = RedisBroker(url=url)
broker.add_middleware(Results(backend=RedisBackend(url=url)))
broker.add_middleware(GroupCallbacks(BarrierBackend(url=url)))
dramatiq.set_broker(broker)
tally = given_tally()


@dramatiq.actor(store_results=True)
def nothing(number: int) -> int:
    tally.add()
    return number


@dramatiq.actor
def step(number: int) -> int:
    return number


@dramatiq.actor
def child(_number: int) -> None:
    """One of a thousand."""


@dramatiq.actor
def collected() -> None:
    tally.add()


def work() -> None:
    worker_threads = dramatiq.Worker(broker, worker_threads=THREADS)
    worker_threads.start()
    threading.Event().wait()  # until it is terminated


def send_ten() -> None:
    dramatiq.pipeline([step.message(1), *(step.message() for _ in range(8)), nothing.message()]).run()


def run_one() -> None:
    nothing.send(1).get_result(block=True, timeout=10_000)


async def main() -> None:
    with worker([sys.executable, __file__, "work"]) as ended:

        async def w1(seconds: float) -> Figures:
            return {"W1": await through_queue(lambda n: from_threads(lambda: nothing.send(1), n), ended, seconds)}

        async def w2(seconds: float) -> Figures:
            return {"W2": 10 * await through_queue(lambda n: from_threads(send_ten, n), ended, seconds, backlog=CHAINS)}

        async def w3(seconds: float) -> Figures:
            return await latency(lambda: asyncio.to_thread(run_one), seconds)

        async def run_group() -> None:
            before = ended.count
            group = dramatiq.group([child.message(number) for number in range(1_000)])
            group.add_completion_callback(collected.message())
            await asyncio.to_thread(group.run)
            await ended.reach(before + 1)

        await from_threads(lambda: nothing.send(1), BATCH)  # warm up
        await ended.reach(BATCH)
        await report({"W1": w1, "W2": w2, "W3": w3, "W4": lambda seconds: fan_out(run_group, seconds)})


if __name__ == "__main__":
    if sys.argv[1] == "work":
        work()
    else:
        asyncio.run(main())
