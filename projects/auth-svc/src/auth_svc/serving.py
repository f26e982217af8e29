"""Serving: takes the port, keeps everything running, and finishes what is under way when told to stop."""

import contextlib
import logging

from auth_svc.app import create_app
from auth_svc.composition import open_service
from auth_svc.settings import SERVICE, AuthSettings
from lib_events import memory
from lib_events.http.server import HttpServer, call_on_stop_signals, listen, running_server, url_at
from lib_events.tracing.environment import open_traces

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 5


async def serve(settings: AuthSettings) -> None:
    """Serve until a signal says stop; raises `SettingsRejected` and `DatabaseError`."""
    with contextlib.closing(listen(settings.host, settings.auth_port, variable="EVS_AUTH_PORT")) as listener:
        url = url_at(settings.auth_url, listener)
        settings = settings.model_copy(update={"auth_port": listener.getsockname()[1], "auth_url": url})
        async with open_traces(SERVICE) as traces, open_service(settings) as service:

            async def release_waiters() -> None:
                service.stopping.set()

            server = HttpServer(
                create_app(service, traces=traces),
                drain_seconds=DRAIN_SECONDS,
                on_stop=release_waiters,
                trusted_proxies=settings.trusted_proxies,
            )
            async with running_server(server, listener):
                call_on_stop_signals(server.stop)
                memory.settle()
                logger.info("%s is ready at %s", SERVICE, settings.auth_url)
                await server.ended()
