"""A marathon of mixed workflows while processes are killed by `kill -9`: nothing may be lost, doubled or left behind.

    uv run python benchmarks/marathon.py [--database sqlite|postgresql] [--runs 100000] [--seed 1]

Workers, on PostgreSQL several, and its server are killed at times drawn by the seed, some workers are stopped for
longer than their lease and then go on. At the end every run must have ended as it must, once; what transactions did is
there exactly once; no run, wait or worker's place is left; and whoever is idle asks the database little.
"""

import argparse
import asyncio
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marathon_checks import look, statements_of_an_idle_engine, statements_of_idle_workers
from marathon_flows import make_effects
from marathon_worker import CLIENTS, LEASE_SECONDS

from lib_events.database import Database, DatabaseUnavailable, open_database
from lib_events.event_log import SCHEMA as EVENTS_SCHEMA
from lib_events.parent_watch import supervised
from lib_events.testing.postgresql import KillablePostgresql
from lib_workflows.tables import SCHEMA

WORKER = Path(__file__).with_name("marathon_worker.py")
POLL_SECONDS = 0.1
IDLE_SECONDS = 10.0
STOPPED_SECONDS = 2.5 * LEASE_SECONDS


@dataclass
class Marathon:
    """The processes, and what is done to them."""

    url: str
    folder: Path
    runs: int
    workers: int
    server: KillablePostgresql | None
    chance: random.Random
    clients: int = CLIENTS  # of each worker
    faults: Counter[str] = field(default_factory=Counter)
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start_worker(self, index: int) -> None:
        """Start a process that works on its share."""
        before = self.processes.get(index)
        if before is not None and before.stdin is not None:
            before.stdin.close()
        arguments = map(str, (self.url, index, self.workers, self.runs, self.folder, self.clients))
        with (self.folder / f"worker-{index}.log").open("ab") as log:
            self.processes[index] = subprocess.Popen(
                [sys.executable, WORKER, *arguments], stdin=subprocess.PIPE, stderr=log, env=supervised()
            )

    def see_to_workers(self) -> None:
        """Start again who has ended without being killed: that must not be, and is counted."""
        for index, process in list(self.processes.items()):
            if process.poll() is not None:
                self.faults["workers that ended by themselves"] += 1
                self.start_worker(index)

    @property
    def is_done(self) -> bool:
        """Whether every share is done."""
        return all((self.folder / f"done-{index}").exists() for index in range(self.workers))

    @property
    def progress(self) -> float:
        """About which part of the runs is done."""
        places = [self.folder / f"place-{index}" for index in range(self.workers)]
        return max((int(place.read_text()) for place in places if place.exists()), default=0) / self.runs

    async def harm(self, name: str | None = None) -> None:
        """Do one of the faults."""
        name = name or self.chance.choices(["worker killed", "server killed", "worker stopped"], [6, 2, 2])[0]
        if self.server is None:
            name = "worker killed"
        index = self.chance.randrange(self.workers)
        self.faults[name] += 1
        await FAULTS[name](self, index)

    async def kill_worker(self, index: int) -> None:
        """Kill a process and start another one in its place."""
        self.processes[index].kill()
        self.processes[index].wait()
        self.start_worker(index)

    async def kill_server(self, _index: int) -> None:
        """Kill the server and start it again."""
        assert self.server is not None
        self.server.kill()
        await asyncio.to_thread(self.server.start)

    async def stop_worker(self, index: int) -> None:
        """Stop a process until others have taken over, then let it go on: a zombie."""
        process = self.processes[index]
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(STOPPED_SECONDS)
        process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Let every process drain and end."""
        for process in self.processes.values():
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.close()
        for process in self.processes.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                self.faults["workers that did not drain"] += 1


FAULTS: dict[str, Callable[[Marathon, int], Any]] = {
    "worker killed": Marathon.kill_worker,
    "server killed": Marathon.kill_server,
    "worker stopped": Marathon.stop_worker,
}


async def run(
    marathon: Marathon,
    *,
    mean_seconds: float,
    timeout: float,  # noqa: ASYNC109
    faults: Sequence[str] = (),
    idle_seconds: float = IDLE_SECONDS,
) -> dict[str, Any]:
    """Play the whole marathon; returns what was found. Raises `TimeoutError` when it does not come to its end.

    Besides what chance does every `mean_seconds` or so, each of `faults` is done when its part of the runs is done.
    """
    database = await _open(marathon.url)
    await database.transact(make_effects)
    await database.close()
    begin = time.monotonic()
    for index in range(marathon.workers):
        marathon.start_worker(index)
    try:
        async with asyncio.timeout(timeout):
            await _harm_until_done(marathon, mean_seconds, faults)
        seconds = time.monotonic() - begin
        found = await _found_beside_workers(marathon, idle_seconds)
    finally:
        marathon.end()
    if marathon.server is None:
        found = await _found_alone(marathon, idle_seconds)
    return {"runs": marathon.runs, "seconds": round(seconds, 1), "faults": dict(marathon.faults), **found}


async def _harm_until_done(marathon: Marathon, mean_seconds: float, faults: Sequence[str]) -> None:
    planned = [(number / (len(faults) + 1), name) for number, name in enumerate(faults, start=1)]
    next_at = time.monotonic() + marathon.chance.expovariate(1 / mean_seconds)
    while planned or not marathon.is_done:
        await asyncio.sleep(POLL_SECONDS)
        marathon.see_to_workers()
        if planned and (marathon.is_done or marathon.progress >= planned[0][0]):
            await marathon.harm(planned.pop(0)[1])
        if time.monotonic() >= next_at and not marathon.is_done:
            await marathon.harm()
            next_at = time.monotonic() + marathon.chance.expovariate(1 / mean_seconds)


async def _found_beside_workers(marathon: Marathon, idle_seconds: float) -> dict[str, Any]:
    """On PostgreSQL the workers live on, idle, while we look."""
    if marathon.server is None:
        return {}
    database = await _open(marathon.url)
    try:
        await asyncio.sleep(2 * LEASE_SECONDS)  # whoever was killed last is taken over by then
        found = await database.read(look, marathon.runs, marathon.workers)
        rate = await statements_of_idle_workers(database, idle_seconds) if idle_seconds else 0.0
        return {**found, "idle transactions/s of a worker": round(rate / marathon.workers, 1)}
    finally:
        await database.close()


async def _found_alone(marathon: Marathon, idle_seconds: float) -> dict[str, Any]:
    """On SQLite one process at a time has the file."""
    rate = await statements_of_an_idle_engine(marathon.url, idle_seconds) if idle_seconds else 0.0
    database = await _open(marathon.url)
    try:
        return {**await database.read(look, marathon.runs, None), "idle statements/s": round(rate, 1)}
    finally:
        await database.close()


async def _open(url: str) -> Database:
    async with asyncio.timeout(60):
        while True:
            try:
                return await open_database(url, service="workflows", schemas=[EVENTS_SCHEMA, SCHEMA])
            except DatabaseUnavailable:  # the server may just have been killed
                await asyncio.sleep(POLL_SECONDS)


def play(kind: str, folder: Path, *, runs: int, workers: int, seed: int, mean_seconds: float, timeout: float) -> Any:
    """Play a marathon on a database of its own in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    server = KillablePostgresql(folder / "postgresql") if kind == "postgresql" else None
    url = f"{server.url}&schema=marathon" if server else f"sqlite:///{folder}/marathon.db"
    count = workers if server else 1
    marathon = Marathon(url, folder, runs, count, server, random.Random(seed))
    try:
        return asyncio.run(run(marathon, mean_seconds=mean_seconds, timeout=timeout))
    finally:
        if server is not None:
            server.stop()


def main() -> None:
    """Play what is asked for and print what was found; exit with 1 when something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], action="append")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mean-seconds", type=float, default=4.0, help="between two faults")
    parser.add_argument("--timeout", type=float, default=4 * 3600.0)
    parser.add_argument("--folder", type=Path, help="for the data; default: a new one")
    options = vars(parser.parse_args())
    kinds = options.pop("database") or ["sqlite", "postgresql"]
    folder = options.pop("folder") or Path(tempfile.mkdtemp(prefix="evs-marathon-"))
    wrong = False
    for kind in kinds:
        found = play(kind, folder / kind, **options)
        print(f"{kind} (seed {options['seed']}, data in {folder / kind})")
        for name, value in found.items():
            print(f"  {name}: {value}", flush=True)
        wrong |= bool(found["wrong"])
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
