"""DBOS 3.4.0, on SQLite or PostgreSQL.

Durable: the start, each step and the result are committed before they count (SQLite's default `synchronous=FULL`,
PostgreSQL's `synchronous_commit=on`), like ours.
Tuning: async workflows started and awaited in one process, which spares DBOS its queue's polling; 50 clients; a pool of
10 connections (SQLite 5: it has one writer anyway) and 4 executor threads (2 to 32 threads, pools of 5 to 40 and 20 to
200 clients are within 30 % of one another, these at the upper end); uvloop; logging of errors only; no OpenTelemetry,
no Conductor. SQLite in WAL mode, which is faster than the rollback journal that DBOS leaves it in, and from
`pysqlite3-binary`, since DBOS needs SQLite 3.42 and Debian 12 has 3.40.
"""

import asyncio
import contextlib
import sys

from measure import Figures, closed_loop, fan_out, given_url, latency, report

CLIENTS = 50
THREADS = 4

if given_url().startswith("sqlite"):
    import pysqlite3

    sys.modules["sqlite3"] = pysqlite3
    with contextlib.closing(pysqlite3.connect(given_url().removeprefix("sqlite:///"))) as file:
        file.execute("PRAGMA journal_mode = WAL")  # stays with the file

import uvloop  # noqa: E402 - DBOS must find that SQLite
from dbos import DBOS  # noqa: E402


@DBOS.step()
async def nothing(number: int) -> int:
    return number


@DBOS.workflow()
async def one_step(number: int) -> int:
    return await nothing(number)


@DBOS.workflow()
async def ten_steps(number: int) -> int:
    for _ in range(10):
        number = await nothing(number)
    return number


@DBOS.workflow()
async def thousand_children() -> int:
    # Started one after the other: a workflow must call DBOS in the same order whenever it is replayed.
    handles = [await DBOS.start_workflow_async(one_step, number) for number in range(1_000)]
    return sum([await handle.get_result() for handle in handles])


async def run_one() -> int:
    return await (await DBOS.start_workflow_async(one_step, 1)).get_result()


async def run_ten() -> int:
    return await (await DBOS.start_workflow_async(ten_steps, 1)).get_result()


async def run_parent() -> int:
    return await (await DBOS.start_workflow_async(thousand_children)).get_result()


async def w1(seconds: float) -> Figures:
    return {"W1": await closed_loop(run_one, clients=CLIENTS, seconds=seconds)}


async def w2(seconds: float) -> Figures:
    return {"W2": 10 * await closed_loop(run_ten, clients=CLIENTS, seconds=seconds)}


async def w3(seconds: float) -> Figures:
    return await latency(run_one, seconds)


async def w4(seconds: float) -> Figures:
    return await fan_out(run_parent, seconds)


async def main() -> None:
    DBOS(
        config={
            "name": "bench",
            "system_database_url": given_url(),
            "sys_db_pool_size": 5 if given_url().startswith("sqlite") else 10,
            "max_executor_threads": THREADS,
            "log_level": "ERROR",
        }
    )
    DBOS.launch()
    await closed_loop(run_one, clients=CLIENTS, seconds=0.5)  # warm up
    await report({"W1": w1, "W2": w2, "W3": w3, "W4": w4})
    DBOS.destroy()


if __name__ == "__main__":
    asyncio.run(main(), loop_factory=uvloop.new_event_loop)
