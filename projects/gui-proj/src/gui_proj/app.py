"""The composition root: which address shows which screen, and how the parts are wired."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import httpx
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gui_proj import entrance
from gui_proj.app_service import AppService, AppServiceDown, AppServiceRefused
from gui_proj.assets import Assets
from gui_proj.live import LiveFeeds
from gui_proj.screens import (
    about,
    access,
    account,
    approvals,
    backfill,
    catalogue,
    comparison,
    errors,
    events,
    home,
    queue,
    queues,
    run,
    run_commands,
    runs,
    schedule,
    schedule_form,
    schedules,
    start,
    webhook,
    webhooks,
)
from gui_proj.sealed import derived_key
from gui_proj.session import AuthServiceDown, Sessions, SignedOut
from gui_proj.settings import CLIENT_ID, GuiSettings
from gui_proj.sign_in import SignIn, SignInFailed
from gui_proj.visit import Gui, Handler, read_visit
from gui_proj.web_guard import WebGuard
from lib_auth.client import OAuthClient
from lib_auth.jwks import RemoteKeys
from lib_events.http.health import health_routes
from lib_events.http.limits import MEBIBYTE, BodyLimit
from lib_events.telemetry import Metrics, RequestTelemetry, carry_trace

if TYPE_CHECKING:
    from lib_events.tracing.traces import Traces

BIGGEST_BODY: Final = 16 * MEBIBYTE
GET: Final = ("GET",)
POST: Final = ("POST",)

SCREENS: Final[tuple[tuple[tuple[str, ...], str, Handler], ...]] = (
    (GET, "/", home.show),
    (GET, "/workflows", catalogue.show),
    (GET, "/workflows/{name}", start.show),
    (POST, "/workflows/{name}", start.submit),
    (GET, "/runs", runs.show),
    (GET, "/runs/{id}", run.show),
    (GET, "/runs/{id}/comparison", comparison.show),
    (GET, "/runs/{id}/{part:str}.json", run.download),
    (GET, "/runs/{id}/history/{position}", run.operation),
    (POST, "/runs/{id}/cancel", run_commands.cancel),
    (POST, "/runs/{id}/retry", run_commands.retry),
    (POST, "/runs/{id}/signal", run_commands.signal),
    (GET, "/schedules", schedules.show),
    # No schedule can have such a name: none begins with a plus.
    (GET, "/schedules/+new", schedule_form.new),
    (POST, "/schedules/+new", schedule_form.create),
    (POST, "/schedules/+preview", schedule_form.preview),
    (GET, "/schedules/{name}", schedule.show),
    (GET, "/schedules/{name}/edit", schedule_form.edit),
    (POST, "/schedules/{name}/edit", schedule_form.change),
    (GET, "/schedules/{name}/backfill", backfill.show),
    (POST, "/schedules/{name}/backfill", backfill.submit),
    (GET, "/schedules/{name}/delete", schedule.ask_to_delete),
    (POST, "/schedules/{name}/delete", schedule.delete),
    (POST, "/schedules/{name}/trigger", schedule.trigger),
    (POST, "/schedules/{name}/pause", schedule.pause),
    (POST, "/schedules/{name}/resume", schedule.resume),
    (GET, "/queues", queues.show),
    (GET, "/queues/{name}", queue.show),
    (POST, "/queues/{name}", queue.limit),
    (POST, "/queues/{name}/pause", queue.pause),
    (POST, "/queues/{name}/resume", queue.resume),
    (GET, "/approvals", approvals.show),
    (POST, "/approvals/{id}/decision", approvals.decide),
    (GET, "/events", events.show),
    (GET, "/webhooks", webhooks.show),
    (GET, "/webhooks/+new", webhooks.new),
    (POST, "/webhooks/+new", webhooks.create),
    (GET, "/webhooks/{id}", webhook.show),
    (GET, "/webhooks/{id}/edit", webhook.edit),
    (POST, "/webhooks/{id}/edit", webhook.change),
    (GET, "/webhooks/{id}/delete", webhook.ask_to_delete),
    (POST, "/webhooks/{id}/delete", webhook.delete),
    (POST, "/webhooks/{id}/test", webhook.send_test),
    (POST, "/webhooks/{id}/pause", webhook.pause),
    (POST, "/webhooks/{id}/resume", webhook.resume),
    (POST, "/webhooks/{id}/rotate", webhook.rotate),
    (POST, "/webhooks/{id}/dead-letters/{letter}", webhook.settle_letter),
    (GET, "/access", access.show),
    (POST, "/access", access.ask),
    (GET, "/account", account.show),
    (POST, "/theme", account.choose_theme),
    (GET, "/live", entrance.live),
    (POST, "/sign-out", entrance.sign_out),
)


def screen(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """A screen for whoever is signed in; everybody else is sent to sign in first."""

    async def answer(request: Request) -> Response:
        gui: Gui = request.app.state.gui
        session = gui.sessions.find(request.cookies.get(gui.settings.cookie))
        if session is None:
            return await entrance.send_to_sign_in(request, gui)
        visit = await read_visit(request, gui, session)
        return await handler(visit)

    return answer


def create_app(settings: GuiSettings, client_secret: str, *, traces: "Traces | None" = None) -> WebGuard:
    """The whole GUI as an ASGI application; the guard is outermost, so that even a crash's page carries its policy."""
    return WebGuard(_starlette(settings, client_secret, traces), gui_url=settings.gui_url, issuer=settings.auth_url)


def live_feeds(guarded: WebGuard) -> LiveFeeds:
    """The live streams of a running application."""
    assert isinstance(guarded.app, Starlette)  # noqa: S101 - what create_app wraps
    gui: Gui = guarded.app.state.gui
    return gui.live


def _starlette(settings: GuiSettings, client_secret: str, traces: "Traces | None") -> Starlette:
    metrics = Metrics("gui-proj")
    assets = Assets()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=50)
        hooks = {"request": [carry_trace] if traces is not None else []}
        async with httpx.AsyncClient(limits=limits, timeout=15.0, event_hooks=hooks) as http:
            app.state.gui = gui = wire(settings, client_secret, http, assets)
            try:
                yield
            finally:
                await gui.live.close()
                gui.sessions.close()

    return Starlette(
        routes=[
            *(Route(path, screen(handler), methods=list(methods)) for methods, path, handler in SCREENS),
            Route("/callback", entrance.callback),
            Route("/sign-in", entrance.sign_in),
            Route("/signed-out", entrance.signed_out),
            Route("/about", about.show),
            *health_routes({}),
            metrics.route(),
            assets.route(),
        ],
        middleware=[
            Middleware(RequestTelemetry, metrics=metrics, traces=traces),
            Middleware(GZipMiddleware, minimum_size=1000, compresslevel=5),
            Middleware(BodyLimit, limit_bytes=BIGGEST_BODY),
        ],
        exception_handlers={
            SignedOut: entrance.session_over,
            AppServiceDown: errors.service_down,
            AuthServiceDown: errors.service_down,
            SignInFailed: errors.sign_in_failed,
            AppServiceRefused: errors.refused,
            HTTPException: errors.http_error,
            Exception: errors.crashed,
        },
        lifespan=lifespan,
    )


def wire(settings: GuiSettings, client_secret: str, http: httpx.AsyncClient, assets: Assets) -> Gui:
    """Makes the parts and hands each what it needs."""
    client = OAuthClient(settings.auth_url, CLIENT_ID, client_secret=client_secret, http=http)
    keys = RemoteKeys(http, f"{settings.auth_url}/oauth2/jwks")
    sessions = Sessions(settings.data / "gui.db", client, resource=settings.app_url)
    app = AppService(http, settings.app_url, sessions)
    sign_in = SignIn(
        http,
        client,
        keys,
        app_url=settings.app_url,
        gui_url=settings.gui_url,
        key=derived_key(client_secret, "evs-gui sign-in cookie"),
    )
    return Gui(settings, assets, sessions, sign_in, app, LiveFeeds(app))
