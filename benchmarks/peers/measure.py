"""What the runners share: how each row is measured, and the line of JSON that `engine_peers.py` reads.

A runner is called `run_….py URL --seconds S --only W1,W2,W3,W4` and prints its figures as the last line.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path

type Figures = dict[str, float]
type Workload = Callable[[float], Awaitable[Figures]]

BACKLOG = 1_000  # what a queue holds while it is measured: its workers never wait for the client
CHAINS = 200  # the same of chains of ten
BATCH = 100
CLIENT_THREADS = 8  # where a client library is synchronous


def arguments() -> argparse.Namespace:
    """URL, seconds and rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--only", default="W1,W2,W3,W4")
    return parser.parse_args()


def given_url() -> str:
    """The server's URL, in the client and in its worker process."""
    return os.environ.get("BENCH_URL") or sys.argv[1]


async def report(workloads: Mapping[str, Workload]) -> None:
    """Measure the rows that are asked for and print them."""
    options = arguments()
    figures: Figures = {}
    for name, workload in workloads.items():
        if name in options.only.split(","):
            figures |= await workload(options.seconds)
    print(json.dumps(figures), flush=True)


async def closed_loop(one: Callable[[], Awaitable[object]], *, clients: int, seconds: float) -> float:
    """Calls of `one` per second with so many clients, each waiting for its last before it begins the next."""
    done = 0
    end = time.perf_counter() + seconds

    async def client() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await one()
            done += 1

    begin = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return done / (time.perf_counter() - begin)


async def one_at_a_time(one: Callable[[], Awaitable[object]], seconds: float) -> list[float]:
    """How many milliseconds each call took, each on an idle system; at least one call."""
    took: list[float] = []
    end = time.perf_counter() + seconds
    while not took or time.perf_counter() < end:
        begin = time.perf_counter()
        await one()
        took.append((time.perf_counter() - begin) * 1_000)
    return took


async def latency(one: Callable[[], Awaitable[object]], seconds: float) -> Figures:
    """W3 of the table."""
    await one()
    await one()
    cuts = statistics.quantiles(await one_at_a_time(one, seconds), n=100)
    return {"W3 p50": cuts[49], "W3 p99": cuts[98]}


async def fan_out(one: Callable[[], Awaitable[object]], seconds: float) -> Figures:
    """W4 of the table."""
    return {"W4": statistics.median(await one_at_a_time(one, seconds))}


class Tally:
    """Counts what ended, over all processes and threads, for next to nothing: a byte at the end of a file."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)

    def add(self) -> None:
        os.write(self._file, b".")

    @property
    def count(self) -> int:
        return os.fstat(self._file).st_size

    async def reach(self, count: int) -> None:
        while self.count < count:
            await asyncio.sleep(0.000_5)


def given_tally() -> Tally:
    """The worker's side of the tally that `worker` made."""
    return Tally(os.environ.get("BENCH_TALLY", os.devnull))


async def through_queue(
    send: Callable[[int], Awaitable[object]], tally: Tally, seconds: float, *, backlog: int = BACKLOG
) -> float:
    """Tallied ends per second, from the first that is sent to the last that ended."""
    before, sent = tally.count, 0
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        if sent - (tally.count - before) > backlog - BATCH:
            await asyncio.sleep(0.001)
        else:
            await send(BATCH)
            sent += BATCH
    await tally.reach(before + sent)
    return sent / (time.perf_counter() - begin)


async def from_threads(send: Callable[[], object], count: int) -> None:
    """Call `send` so often, spread over the client's threads."""

    def work(first: int) -> None:
        for _ in range(first, count, CLIENT_THREADS):
            send()

    await asyncio.gather(*(asyncio.to_thread(work, first) for first in range(CLIENT_THREADS)))


@contextlib.contextmanager
def worker(command: list[str]) -> Iterator[Tally]:
    """A worker process beside the client; it finds the URL and the tally in its environment."""
    with tempfile.TemporaryDirectory(prefix="peer-") as folder:
        tally = str(Path(folder) / "tally")
        environment = os.environ | {"BENCH_URL": given_url(), "BENCH_TALLY": tally}
        with subprocess.Popen(
            command, cwd=Path(__file__).parent, env=environment, stdout=subprocess.DEVNULL
        ) as process:
            try:
                yield Tally(tally)
            finally:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
                process.kill()
