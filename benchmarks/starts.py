"""Runs started over HTTP: `uv run python benchmarks/starts.py [--seconds 3] [--rounds 3] [--database URL]`.

The whole product runs (`evs up` on new data), and clients with real access tokens start one-step workflows: each in a
request of its own, and a hundred in a batch. Every start is durable when its answer comes, and its run runs to its end
beside. In the same rounds, as a limit, a bare ASGI application that reads the body and answers, on the same server and
settings. Figures are medians: starts a second, and CPU of the serving process for each.
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

EVS = str(Path(sys.executable).with_name("evs"))
BATCH = 100
START = {"workflow": "one-step", "input": 1}
WORKFLOWS = Path(__file__).with_name("engine.py")
BARE = """
import asyncio
import sys

import uvicorn

from lib_events.http.server import HttpServer, listen, new_event_loop, running_server


async def answer(scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"{}"})


async def main():
    async def nothing():
        pass

    with listen("127.0.0.1", int(sys.argv[1]), variable="PORT") as listener:
        async with running_server(HttpServer(answer, drain_seconds=1, on_stop=nothing), listener):
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.read)


asyncio.run(main(), loop_factory=new_event_loop)
"""


@dataclass(frozen=True, slots=True)
class Server:
    """Who answers: where, in which process, and with which token."""

    port: int
    pid: int
    token: str = ""

    def cpu_seconds(self) -> float:
        """The CPU its process has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Client(asyncio.Protocol):
    """One connection that sends its request again and again until the end, each after the answer to the one before."""

    def __init__(self, request: bytes, end: float) -> None:
        self._request = request
        self._end = end
        self._rest = b""
        self.answers = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._rest += data
        head, found, body = self._rest.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().partition(b"content-length: ")[2].split(b"\r\n", 1)[0]):
            return
        if not head.startswith(b"HTTP/1.1 202"):
            self.done.set_exception(RuntimeError(f"start must be answered by 202, got {self._rest[:500]!r}"))
            self._transport.abort()
            return
        self._rest = b""
        self.answers += 1
        if time.perf_counter() < self._end:
            self._transport.write(self._request)
        else:
            self._transport.close()
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or RuntimeError("the server has closed the connection"))


async def measure(server: Server, path: str, document: object, *, clients: int, seconds: float) -> tuple[float, float]:
    """Answers a second, and the server's CPU seconds for each."""
    body = json.dumps(document).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{server.port}\r\nauthorization: Bearer {server.token}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    loop, cpu, began = asyncio.get_running_loop(), server.cpu_seconds(), time.perf_counter()
    opened = []
    for _ in range(clients):
        _, client = await loop.create_connection(
            lambda: Client(head.encode() + body, began + seconds), "127.0.0.1", server.port
        )
        opened.append(client)
    await asyncio.gather(*(client.done for client in opened))
    answers = sum(client.answers for client in opened)
    return answers / (time.perf_counter() - began), (server.cpu_seconds() - cpu) / answers


def free_port() -> int:
    """A port nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def product(folder: Path, database: str | None) -> Iterator[Server]:
    """The whole product on new data, with the workflows of `engine.py`."""
    data, port = folder / "evs", free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EVS_")}
    environment |= {"EVS_DATA": str(data)} | ({"EVS_DATABASE_URL": database} if database else {})

    def evs(*words: str) -> str:
        return subprocess.run(
            [EVS, *words], env=environment, cwd=folder, check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    ports = ("--gui-port", str(free_port()), "--auth-port", str(free_port()), "--app-port", str(port))
    evs("up", "--detach", *ports, "--workflows", str(WORKFLOWS))
    try:
        status = json.loads(evs("status", "-o", "json"))
        (pid,) = (service["pid"] for service in status["services"] if service["service"] == "app-svc")
        yield Server(port, pid, evs("auth", "token").strip())
    finally:
        evs("down")


@contextmanager
def bare() -> Iterator[Server]:
    """An ASGI application that only answers."""
    port = free_port()
    command = [sys.executable, "-c", BARE, str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        yield Server(port, process.pid)
        process.stdin.close()


async def compare(ours: Server, limit: Server, options: argparse.Namespace) -> None:
    """Measure all in turns and print the medians."""
    batch = {"runs": [START] * BATCH}
    ways = {
        "single, 64 clients": (ours, "/v1/runs", START, 64, 1),
        "single, 256 clients": (ours, "/v1/runs", START, 256, 1),
        f"batches of {BATCH}, 16 clients": (ours, "/v1/runs:batch", batch, 16, BATCH),
        "bare ASGI, 64 clients": (limit, "/", START, 64, 1),
        "bare ASGI, 256 clients": (limit, "/", START, 256, 1),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, (server, path, document, clients, each) in ways.items():
            rate, cpu = await measure(server, path, document, clients=clients, seconds=options.seconds)
            found[name].append((rate * each, cpu / each))
    for name, figures in found.items():
        rates, cpus = zip(*figures, strict=True)
        spread = f"({min(rates):,.0f} to {max(rates):,.0f})"
        print(f"{name:<28}{statistics.median(rates):>9,.0f}/s {spread:<20}{statistics.median(cpus) * 1e6:>7.0f} us CPU")


def main() -> None:
    """Measure starts beside a bare application."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--database", help="a PostgreSQL URL instead of SQLite")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, product(Path(folder), options.database) as ours, bare() as limit:
        asyncio.run(compare(ours, limit, options))


if __name__ == "__main__":
    main()
