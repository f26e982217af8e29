"""Serving and working: takes the port, keeps everything running, and drains when told to stop."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from app_svc.app import create_app
from app_svc.service import Service, open_engine_only, open_service
from app_svc.settings import AppSettings
from lib_events import memory
from lib_events.http.server import HttpServer, call_on_stop_signals, listen, running_server, url_at

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Serving:
    """A running AppService."""

    url: str
    service: Service
    server: HttpServer


async def serve(settings: AppSettings) -> None:
    """Serve until a signal says stop; then finish what is under way."""
    async with serving(settings) as running:
        call_on_stop_signals(running.server.stop)
        memory.settle()
        logger.info("app-svc is ready at %s", running.url)
        await running.server.ended()


async def work(settings: AppSettings) -> None:
    """Run one engine without REST until a signal says stop."""
    settings.check_worker()
    settings.prepare_data()
    stopped = asyncio.Event()
    call_on_stop_signals(stopped.set)
    async with open_engine_only(settings):
        memory.settle()
        logger.info("app-svc worker is ready")
        await stopped.wait()


@asynccontextmanager
async def serving(settings: AppSettings) -> AsyncIterator[Serving]:
    """Serve inside the block; raises `SettingsRejected`, `DatabaseError`, `WorkflowsNotLoaded`."""
    with contextlib.closing(listen(settings.host, settings.app_port, variable="EVS_APP_PORT")) as listener:
        url = url_at(settings.app_url, listener)
        settings = settings.model_copy(update={"app_port": listener.getsockname()[1], "app_url": url})
        settings.check_urls()
        settings.prepare_data()
        async with open_service(settings) as service:

            async def end_streams() -> None:
                service.streams.close()

            server = HttpServer(create_app(service), drain_seconds=settings.drain_seconds, on_stop=end_streams)
            async with running_server(server, listener):
                yield Serving(url, service, server)
