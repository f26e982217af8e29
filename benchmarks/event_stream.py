"""Server-sent events to many clients: `uv run python benchmarks/event_stream.py [--clients 1000] [--rate 100]`.

One process serves the feed of a real SQLite event log, another one holds the clients. Beside our stream, in the same
interleaved rounds, runs the plain way: Starlette's `StreamingResponse` over a queue for each client, each event encoded
and sent for each of them. Each figure is the median of the rounds: latency from before the commit to the client's read,
the server's CPU in percent of a core (user and system), events lost, the rate that was kept, and memory for a client.
"""

import argparse
import asyncio
import json
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

WAYS = ("ours", "plain")
SERVER = Path(__file__).with_name("event_stream_server.py")


@dataclass
class Heard:
    """What all clients of a round have heard."""

    count: int = 0
    latencies: list[float] = field(default_factory=list)


class Client(asyncio.Protocol):
    """One reader of the stream: counts events, and times every twentieth."""

    def __init__(self, path: str, heard: Heard) -> None:
        self._request = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: text/event-stream\r\n\r\n".encode()
        self._heard = heard
        self._rest = b""
        self.open = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.open.done() and b"retry:" in data:
            self.open.set_result(None)
        *frames, self._rest = (self._rest + data).split(b"\n\n")
        for frame in frames:
            if (at := frame.find(b'"at":')) >= 0:
                self._heard.count += 1
                if self._heard.count % 20 == 0:
                    sent = float(frame[at + 5 : frame.index(b",", at)])
                    self._heard.latencies.append(time.time() - sent)


@asynccontextmanager
async def clients(count: int, port: int, way: str, heard: Heard) -> AsyncIterator[None]:
    """Hold so many open streams."""
    loop = asyncio.get_running_loop()
    opened = []
    try:
        for _ in range(count):
            transport, protocol = await loop.create_connection(lambda: Client(f"/{way}", heard), "127.0.0.1", port)
            opened.append((transport, protocol))
        await asyncio.gather(*(protocol.open for _, protocol in opened))
        yield
    finally:
        for transport, _ in opened:
            transport.abort()


async def measure(server: subprocess.Popen[str], port: int, way: str, options: argparse.Namespace) -> dict[str, float]:
    """One round of one way."""

    async def ask(line: str) -> dict[str, float]:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(line + "\n")
        server.stdin.flush()
        found: dict[str, float] = json.loads(await asyncio.to_thread(server.stdout.readline))
        return found

    heard = Heard()
    before = (await ask("memory"))["memory"]
    async with clients(options.clients, port, way, heard):
        after = (await ask("memory"))["memory"]
        answer = await ask(f"publish {options.rate} {options.seconds}")
        expected = options.clients * round(options.rate * options.seconds)
        with suppress(TimeoutError):
            async with asyncio.timeout(10):
                while heard.count < expected:
                    await asyncio.sleep(0.05)
    cuts = statistics.quantiles(heard.latencies, n=100)
    return {
        "p50_ms": cuts[49] * 1_000,
        "p99_ms": cuts[98] * 1_000,
        "cpu_percent": answer["cpu"] * 100,
        "events_per_s": answer["rate"],
        "lost": expected - heard.count,
        "kib_per_client": (after - before) / 1024 / options.clients,
    }


def free_port() -> int:
    """A port nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def compare(options: argparse.Namespace) -> None:
    """Measure both ways in turns and print the medians."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    port, rounds = free_port(), {way: list[dict[str, float]]() for way in WAYS}
    command = [sys.executable, str(SERVER), str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdout.readline()
        for _ in range(options.rounds):
            for way in WAYS:
                rounds[way].append(await measure(server, port, way, options))
        server.stdin.close()
    print(f"{options.clients} clients x {options.rate:g} events/s, medians of {options.rounds} rounds")
    for way, found in rounds.items():
        medians = {name: statistics.median(one[name] for one in found) for name in found[0]}
        print(f"{way:<6}", "  ".join(f"{name} {value:8.1f}" for name, value in medians.items()))


def main() -> None:
    """Measure both ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=1_000)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    asyncio.run(compare(parser.parse_args()))


if __name__ == "__main__":
    main()
