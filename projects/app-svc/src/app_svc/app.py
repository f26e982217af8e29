"""The HTTP application: every route in one place, behind limits, checks and telemetry."""

import logging
from urllib.parse import urlsplit

from fastapi import FastAPI
from pydantic_core import PydanticSerializationError
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from app_svc.approvals import approval_routes
from app_svc.authorization import guarded_route
from app_svc.catalogue import catalogue_routes
from app_svc.dead_letters import dead_letter_routes
from app_svc.discovery import discovery_routes, install_openapi
from app_svc.events import event_routes
from app_svc.incoming_webhook_routes import incoming_webhook_routes
from app_svc.runs import run_routes
from app_svc.service import Service
from app_svc.webhooks import webhook_routes
from lib_events.committer import CommitQueueFull
from lib_events.database import CommitFailed, Fenced
from lib_events.health import health_routes
from lib_events.http_limits import BodyLimit, HostCheck
from lib_events.problem import REQUEST_PREFIX, Problem, install_problem_handlers, problem_response, request_id
from lib_events.telemetry import RequestTelemetry
from lib_workflows.errors import EngineStopped

logger = logging.getLogger(__name__)

REQUEST_HEADERS = ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "Prefer", "X-Request-Id")
RETRY_AFTER_SECONDS = "2"
UNAVAILABLE = (CommitFailed, CommitQueueFull, EngineStopped, Fenced)
ANSWER_HEADERS = ("Location", "Preference-Applied", "WWW-Authenticate", "X-Request-Id")


def create_app(service: Service) -> FastAPI:
    """Return the application over a running service."""
    settings = service.settings
    app = FastAPI(
        title="AppService",
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        routes=[
            *health_routes(service.checks()),
            service.metrics.route(),
            *discovery_routes(settings, service.event_types),
        ],
    )
    route_class = guarded_route(service.guard)
    app.include_router(catalogue_routes(service.workflows, route_class=route_class))
    app.include_router(run_routes(service, route_class=route_class))
    app.include_router(approval_routes(service.database, route_class=route_class))
    app.include_router(event_routes(service, route_class=route_class))
    app.include_router(dead_letter_routes(service.database, route_class=route_class))
    # Before the next, whose ids would take in the word "in".
    app.include_router(incoming_webhook_routes(service, route_class=route_class))
    app.include_router(webhook_routes(service, route_class=route_class))
    install_openapi(app, settings)
    install_problem_handlers(app)
    for kind in UNAVAILABLE:
        app.add_exception_handler(kind, _unavailable)
    app.add_exception_handler(PydanticSerializationError, _unencodable)
    # The last one added is the outermost.
    app.add_middleware(BodyLimit, limit_bytes=settings.body_limit_bytes)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=REQUEST_HEADERS,
            expose_headers=ANSWER_HEADERS,
        )
    app.add_middleware(HostCheck, hosts=[urlsplit(settings.app_url).netloc])
    app.add_middleware(RequestTelemetry, metrics=service.metrics)
    return app


async def _unavailable(request: Request, error: Exception) -> Response:
    """Nothing was stored, or nobody knows; the text of these errors is made for the client, too."""
    logger.error("answering 503: %s", error)
    problem = Problem(503, "try-again", "Not now", str(error), headers={"retry-after": RETRY_AFTER_SECONDS})
    return problem_response(problem, REQUEST_PREFIX + request_id(request))


async def _unencodable(request: Request, _error: Exception) -> Response:
    """JSON can name characters that no text can have, such as half of a surrogate pair."""
    problem = Problem(
        422, "invalid-input", detail="texts must be Unicode without lone surrogates; encode them properly"
    )
    return problem_response(problem, REQUEST_PREFIX + request_id(request))
