"""Taskiq 0.13.0 with taskiq-redis 1.2.4 on Redis streams with `appendfsync always`.

Durable: a message and a result are on disk when Redis has answered; acknowledged once the result is saved. It has
tasks, no workflows, chains or groups: no W2, and in W4 the client sends the thousand and waits for all results.
Tuning: a worker process with 100 tasks at once, prefetch 200, 100 messages a pull; results in the same Redis, asked
for every millisecond; uvloop in both.
"""

import asyncio
import sys

import uvloop
from measure import BATCH, Figures, fan_out, given_tally, given_url, latency, report, through_queue, worker
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

URL = given_url()
ASK_SECONDS = 0.001

broker = RedisStreamBroker(URL, consumer_id="0", xread_count=100).with_result_backend(RedisAsyncResultBackend(URL))
tally = given_tally()


@broker.task(task_name="nothing")
async def nothing(number: int) -> int:
    tally.add()
    return number


async def send(count: int) -> None:
    await asyncio.gather(*(nothing.kiq(number) for number in range(count)))


async def run_one() -> None:
    await (await nothing.kiq(1)).wait_result(check_interval=ASK_SECONDS, timeout=10)


async def main() -> None:
    flags = "--workers 1 --max-async-tasks 100 --max-prefetch 200 --ack-type when_saved --log-level ERROR"
    command = [sys.executable, "-m", "taskiq", "worker", "run_taskiq:broker", *flags.split()]
    with worker(command) as ended:

        async def w1(seconds: float) -> Figures:
            return {"W1": await through_queue(send, ended, seconds)}

        async def w3(seconds: float) -> Figures:
            return await latency(run_one, seconds)

        async def run_thousand() -> None:
            before = ended.count
            tasks = await asyncio.gather(*(nothing.kiq(number) for number in range(1_000)))
            await ended.reach(before + 1_000)
            results = await asyncio.gather(*(task.wait_result(check_interval=0.05, timeout=60) for task in tasks))
            sum(result.return_value for result in results)

        await broker.startup()
        await send(BATCH)  # warm up
        await ended.reach(BATCH)
        await report({"W1": w1, "W3": w3, "W4": lambda seconds: fan_out(run_thousand, seconds)})
        await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(main(), loop_factory=uvloop.new_event_loop)
