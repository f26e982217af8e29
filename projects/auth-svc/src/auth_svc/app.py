"""The application: programs and browsers come in by Starlette's routes, administrators' REST by FastAPI's."""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fastapi import FastAPI
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from auth_svc.api import rest_routes
from auth_svc.api.administrator import install_change_handlers
from auth_svc.api.openapi import install_openapi
from auth_svc.api.transfer import IMPORT_PATH
from auth_svc.endpoints.oauth_http import ProtocolRefused, protocol_refused
from auth_svc.pages.notices import error_page
from auth_svc.parameters import ParametersRejected
from auth_svc.people.passwords import PasswordsBusy
from auth_svc.rate_limits import TooManyAttempts
from auth_svc.routes import fixed_endpoints, routes
from auth_svc.service import AuthService
from auth_svc.settings import SERVICE
from auth_svc.site.browser import PageRefused, render
from lib_events.database import UNAVAILABLE, Connection, Database
from lib_events.http.health import Check, health_routes
from lib_events.http.limits import MEBIBYTE, BodyLimit, HostCheck
from lib_events.http.wire import Wire
from lib_events.problem import RETRY_AFTER_SECONDS, answer_error, answer_unavailable, install_problem_handlers
from lib_events.telemetry import NOT_BY_FASTAPI, Metrics, RequestTelemetry

if TYPE_CHECKING:
    from lib_events.tracing.traces import Traces

BODY_LIMIT_BYTES = 64 * 1024
IMPORT_LIMIT_BYTES = 64 * MEBIBYTE  # read only once an administrator has signed in
# What a web page may ask by itself where its origin is named: all that a client needs that is a page (OAuth 2.1 section
# 3.1 forbids it for the authorization endpoint), and nothing that a cookie opens.
FOR_PAGES = frozenset(("/oauth2/token", "/oauth2/par", "/oauth2/revoke", "/oauth2/userinfo"))
PAGE_HEADERS = ("Authorization", "Content-Type", "DPoP", "Idempotency-Key")
TOLD_PAGES = ("DPoP-Nonce", "Retry-After", "WWW-Authenticate")
REST_PREFIXES = ("/v1/admin", "/v1/access-requests", "/openapi.json")


def create_app(service: AuthService, *, traces: "Traces | None" = None) -> ASGIApp:
    """Return the application that answers for an open service."""
    metrics = Metrics(SERVICE)
    app: ASGIApp = Split(rest=_rest(service), wire=_wire(service, metrics))
    app = BodyLimit(app, limit_bytes=BODY_LIMIT_BYTES, larger={IMPORT_PATH: IMPORT_LIMIT_BYTES})
    if service.settings.cors_origins:
        app = OpenToPages(app, origins=service.settings.cors_origins)
    app = HostCheck(app, hosts=[urlsplit(service.issuer.url).netloc])
    return RequestTelemetry(app, metrics=metrics, traces=traces)


class Split:
    """Leads a request to the REST resources, or straight to a specification's endpoint or a page.

    What a specification fixes needs nothing of FastAPI, and its layers would cost more than a token's signature.
    """

    def __init__(self, *, rest: ASGIApp, wire: ASGIApp) -> None:
        self._rest = rest
        self._wire = wire

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        is_rest = scope["type"] == "http" and scope["path"].startswith(REST_PREFIXES)
        await (self._rest if is_rest else self._wire)(scope, receive, send)


class OpenToPages:
    """Lets web pages of some origins read what `FOR_PAGES` answers: clients that are a page and have no server."""

    def __init__(self, app: ASGIApp, *, origins: Sequence[str]) -> None:
        self._app = app
        self._open = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=PAGE_HEADERS,
            expose_headers=TOLD_PAGES,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        is_open = scope["type"] == "http" and scope["path"] in FOR_PAGES
        await (self._open if is_open else self._app)(scope, receive, send)


def _rest(service: AuthService) -> FastAPI:
    app = FastAPI(
        title="AuthService",
        version="1",
        docs_url=None,
        redoc_url=None,
        routes=rest_routes(),
        telemetry=NOT_BY_FASTAPI,
    )
    app.state.service = service
    install_problem_handlers(app, unavailable=UNAVAILABLE)
    install_change_handlers(app)
    install_openapi(app, service.issuer.url)
    return app


def _wire(service: AuthService, metrics: Metrics) -> Wire:
    checks = {"database": _check_database(service.database)}
    app = Starlette(routes=[*routes(), *health_routes(checks), metrics.route()])
    app.state.service = service
    install_problem_handlers(app)
    for error, handler in (*HANDLERS.items(), *((error, _not_now) for error in UNAVAILABLE)):
        app.add_exception_handler(error, handler)
    return Wire(app, fixed_endpoints())


def _check_database(database: Database) -> Check:
    async def check() -> str | None:
        await database.read(_ping)
        return None

    return check


def _ping(connection: Connection) -> None:
    connection.execute(text("SELECT 1"))


async def _passwords_busy(request: Request, error: Exception) -> Response:
    assert isinstance(error, PasswordsBusy)  # noqa: S101 - registered for it
    busy = PageRefused(503, "Too many sign-ins at once", "Try again in a moment.", retry_after=error.retry_after)
    return await _page_refused(request, busy)


async def _too_many_attempts(request: Request, error: Exception) -> Response:
    assert isinstance(error, TooManyAttempts)  # noqa: S101 - registered for it
    slower = PageRefused(429, "Too many attempts", f"Wait {error.wait} and try again.", retry_after=error.retry_after)
    return await _page_refused(request, slower)


async def _page_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, PageRefused)  # noqa: S101 - registered for it
    response = render(request, error_page(error.title, error.text, code=error.code), status=error.status)
    if error.retry_after is not None:
        response.headers["retry-after"] = str(error.retry_after)
    return response


async def _not_now(request: Request, error: Exception) -> Response:
    """A person reads a page, a program a problem document."""
    answer = await answer_unavailable(request, error)
    if not _is_read_by_a_person(request):
        return answer
    text = "Nothing can be read or saved at the moment. Wait a little, then try again."
    return await _page_refused(request, PageRefused(503, "Not now", text, retry_after=int(RETRY_AFTER_SECONDS)))


async def _nothing_there(request: Request, error: Exception) -> Response:
    """A person reads a page, a program a problem document."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    if error.status_code == 404 and _is_read_by_a_person(request):
        nothing = PageRefused(404, "There is nothing here", "Check the address, or begin again where you came from.")
        return await _page_refused(request, nothing)
    return await answer_error(request, error)


def _is_read_by_a_person(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")


HANDLERS = {
    HTTPException: _nothing_there,
    PageRefused: _page_refused,
    PasswordsBusy: _passwords_busy,
    TooManyAttempts: _too_many_attempts,
    ProtocolRefused: protocol_refused,
    ParametersRejected: protocol_refused,
}
