"""Serving: takes the port, keeps everything running, and finishes what is under way when told to stop."""

import asyncio
import contextlib
import errno
import logging
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn
import uvloop

from auth_svc.app import create_app, open_service
from auth_svc.settings import SERVICE, AuthSettings
from lib_events.settings import SettingsRejected

logger = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
DRAIN_SECONDS = 5

new_event_loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop


class PortTaken(Exception):
    """Somebody else listens where we should."""


class Server(uvicorn.Server):
    """An HTTP server that leaves signals to `serve`: uvicorn would raise them again before we have cleaned up."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture nothing."""
        yield

    def stop(self) -> None:
        """Stop; a second time, without waiting for anybody."""
        self.force_exit = self.should_exit
        self.should_exit = True


async def serve(settings: AuthSettings) -> None:
    """Serve until a signal says stop; raises `PortTaken`, `SettingsRejected`, `DatabaseError`, `ContractBroken`."""
    with contextlib.closing(listen(settings)) as listener:
        settings = with_port(settings, listener.getsockname()[1])
        async with open_service(settings) as service:
            config = uvicorn.Config(
                create_app(service),
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                lifespan="off",
                timeout_graceful_shutdown=DRAIN_SECONDS,
            )
            server = Server(config)

            def stop() -> None:
                service.stopping.set()
                server.stop()

            for number in STOP_SIGNALS:
                asyncio.get_running_loop().add_signal_handler(number, stop)
            logger.info("%s is ready at %s", SERVICE, settings.auth_url)
            await server.serve(sockets=[listener])


def listen(settings: AuthSettings) -> socket.socket:
    """Take the port, so that a taken one is found before anything else begins."""
    try:
        return socket.create_server((settings.host, settings.auth_port), backlog=2048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(
                f"port {settings.auth_port} must be free, and somebody listens there; "
                "stop it, or choose another with --port or EVS_AUTH_PORT"
            ) from error
        raise SettingsRejected(
            "EVS_HOST and EVS_AUTH_PORT must name an address of this machine, "
            f"got {settings.host}:{settings.auth_port}: {error.strerror}"
        ) from error


def with_port(settings: AuthSettings, port: int) -> AuthSettings:
    """Port 0 means any free one: then the URL is known only now."""
    if settings.auth_port != 0:
        return settings
    url = settings.auth_url
    known = f"{url.removesuffix(':0')}:{port}" if url.endswith(":0") else url
    return settings.model_copy(update={"auth_port": port, "auth_url": known})
