"""Serving HTTP: takes the port before anything else begins, and finishes what is under way when told to stop."""

import asyncio
import contextlib
import errno
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Literal

import uvicorn
import uvloop
from starlette.types import ASGIApp

from lib_events.http.bounded import BoundedHttp
from lib_events.settings import SettingsRejected

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Longer than clients and proxies keep an idle connection (httpx 5 s, load balancers 60 s): were we the first
# to end it, the request that is on its way just then would be lost, and look as if nobody were here.
IDLE_SECONDS = 75

new_event_loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop


class PortTaken(SettingsRejected):
    """Somebody else listens where we should."""


class HttpServer(uvicorn.Server):
    """Told to stop, it calls `on_stop`, which ends what would last for ever, and waits `drain_seconds` for the rest."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        drain_seconds: float,
        on_stop: Callable[[], Awaitable[None]],
        trusted_proxies: Sequence[str] = (),
        lifespan: Literal["on", "off"] = "off",
    ) -> None:
        config = uvicorn.Config(
            app,
            http=BoundedHttp,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(trusted_proxies),
            forwarded_allow_ips=list(trusted_proxies),
            lifespan=lifespan,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=max(1, round(drain_seconds)),
        )
        super().__init__(config)
        self._on_stop = on_stop
        self._started = asyncio.Event()
        self._ended = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `serve_until_signal`: uvicorn would raise them again before we have cleaned up."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and tell who waits for it."""
        await super().startup(sockets)
        self._started.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what is under way."""
        await self._on_stop()
        await super().shutdown(sockets)
        self._ended.set()

    async def wait_started(self, task: "asyncio.Task[None]") -> None:
        """Wait until requests are answered; raises what keeps the server from starting."""
        starting = asyncio.create_task(self._started.wait())
        await asyncio.wait((starting, task), return_when=asyncio.FIRST_COMPLETED)
        starting.cancel()
        if task.done():
            await task

    async def ended(self) -> None:
        """Wait until the server has stopped."""
        await self._ended.wait()

    def stop(self) -> None:
        """Stop; a second time, without waiting for anybody."""
        self.force_exit = self.should_exit
        self.should_exit = True
        if self.force_exit:
            for connection in tuple(self.server_state.connections):
                connection.transport.abort()


@asynccontextmanager
async def running_server(server: HttpServer, listener: socket.socket) -> AsyncIterator[None]:
    """Answer requests inside the block, and finish them on the way out."""
    task = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    try:
        await server.wait_started(task)
        yield
    finally:
        server.stop()
        await task


def call_on_stop_signals(stop: Callable[[], None]) -> None:
    """Call `stop` at each Ctrl-C or SIGTERM."""
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop)


def listen(host: str, port: int, *, variable: str) -> socket.socket:
    """Take the port that the setting `variable` names (0: any free one); raises `PortTaken` and `SettingsRejected`."""
    try:
        listener = socket.create_server((host, port), backlog=2048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(
                f"port {port} must be free, and somebody listens there; "
                f"stop it, or choose another with --port or {variable}"
            ) from error
        raise SettingsRejected(
            f"EVS_HOST and {variable} must name an address of this machine, got {host}:{port}: {error.strerror}"
        ) from error
    # Connections inherit it. asyncio sets it only where the socket names its protocol, which one made so does not,
    # and then every answer waits 40 ms for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def url_at(url: str, listener: socket.socket) -> str:
    """The URL with the port that was taken, where `url` asked for any free one."""
    return f"{url.removesuffix(':0')}:{listener.getsockname()[1]}" if url.endswith(":0") else url
