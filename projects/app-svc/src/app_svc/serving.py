"""Serving and working: takes the port, keeps everything running, and drains when told to stop."""

import asyncio
import contextlib
import errno
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import uvicorn
import uvloop

from app_svc.app import create_app
from app_svc.service import Service, open_engine_only, open_service
from app_svc.settings import AppSettings
from lib_events.settings import SettingsRejected

logger = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

new_event_loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop


class PortTaken(Exception):
    """Somebody else listens where we should."""


async def serve(settings: AppSettings) -> None:
    """Serve until a signal says stop; then finish what is under way."""
    async with serving(settings) as server:
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, server.stop)
        logger.info("app-svc is ready at %s", server.url)
        await server.ended()


async def work(settings: AppSettings) -> None:
    """Run one engine without REST until a signal says stop."""
    settings.check_worker()
    _prepare(settings)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stopped.set)
    async with open_engine_only(settings):
        logger.info("app-svc worker is ready")
        await stopped.wait()


@asynccontextmanager
async def serving(settings: AppSettings) -> AsyncIterator["Server"]:
    """Serve inside the block; raises what `main` ends with: `PortTaken`, `DatabaseError`, `ContractBroken` …"""
    listener = listen(settings)
    try:
        settings = _with_port(settings, listener.getsockname()[1])
        settings.check_urls()
        _prepare(settings)
        async with open_service(settings) as service:
            server = Server(service, settings)
            serving_task = asyncio.create_task(server.serve(sockets=[listener]), name="http")
            try:
                await server.wait_started(serving_task)
                yield server
            finally:
                server.stop()
                await serving_task
    finally:
        listener.close()


class Server(uvicorn.Server):
    """The HTTP server; told to stop, it ends the streams, which would otherwise last for ever."""

    def __init__(self, service: Service, settings: AppSettings) -> None:
        config = uvicorn.Config(
            create_app(service),
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
        )
        super().__init__(config)
        self.url = settings.app_url
        self.service = service
        self._started = asyncio.Event()
        self._ended = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `serve`: uvicorn would raise them again before we have cleaned up."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and tell who waits for it."""
        await super().startup(sockets)
        self._started.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what is under way."""
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
        self.service.streams.close()


def listen(settings: AppSettings) -> socket.socket:
    """Take the port, so that a taken one is found before anything else begins."""
    try:
        listener = socket.create_server((settings.host, settings.app_port), backlog=2048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(
                f"port {settings.app_port} must be free, and somebody listens there; "
                "stop it, or choose another with --port or EVS_APP_PORT"
            ) from error
        raise SettingsRejected(
            f"EVS_HOST and EVS_APP_PORT must name an address of this machine, got {settings.host}:{settings.app_port}: "
            f"{error.strerror}"
        ) from error
    # Connections inherit it. asyncio sets it only where the socket names its protocol, which one made so does not,
    # and then every answer waits 40 ms for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _with_port(settings: AppSettings, port: int) -> AppSettings:
    """Port 0 means any free one: then the URL is known only now."""
    if settings.app_port != 0:
        return settings
    url = settings.app_url.removesuffix(":0") + f":{port}" if settings.app_url.endswith(":0") else settings.app_url
    return settings.model_copy(update={"app_port": port, "app_url": url})


def _prepare(settings: AppSettings) -> None:
    try:
        settings.prepare_data()
    except OSError as error:
        raise SettingsRejected(
            f"data folder must be writable, got {settings.data}: {error.strerror}; choose another with --data"
        ) from error
