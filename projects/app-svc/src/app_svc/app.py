"""The HTTP application: every route in one place, behind limits, checks and telemetry."""

import logging
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from app_svc.agents.door import agent_routes
from app_svc.approvals import ApprovalRoutes, approval_routes
from app_svc.authorization import guarded_route
from app_svc.catalogue import catalogue_routes
from app_svc.dead_letters import dead_letter_routes
from app_svc.direct_start import START_PATH, DirectStart
from app_svc.discovery import discovery_routes, install_openapi
from app_svc.events import event_routes
from app_svc.incoming_webhook_routes import incoming_webhook_routes
from app_svc.problems import NOT_NOW, problem_of
from app_svc.queues import queue_routes
from app_svc.runs import RunRoutes, run_routes
from app_svc.schedules import schedule_routes
from app_svc.service import Service
from app_svc.updates import UpdateRoutes, update_routes
from app_svc.webhooks import webhook_routes
from lib_events.http.health import health_routes
from lib_events.http.limits import BodyLimit, HostCheck
from lib_events.http.wire import Wire
from lib_events.problem import REQUEST_PREFIX, install_problem_handlers, problem_response, request_id
from lib_events.telemetry import NOT_BY_FASTAPI, RequestTelemetry
from lib_workflows.errors import PayloadTooLarge
from lib_workflows.paging import PageCursorInvalid

logger = logging.getLogger(__name__)

REQUEST_HEADERS = ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "Prefer", "X-Request-Id")
AGENT_HEADERS = ("MCP-Protocol-Version", "Mcp-Method", "Mcp-Name")
ANSWER_HEADERS = ("Location", "Preference-Applied", "WWW-Authenticate", "X-Request-Id")


def create_app(service: Service) -> ASGIApp:
    """Return the application over a running service."""
    settings = service.settings
    runs = RunRoutes(service)
    app: ASGIApp = Wire(rest_app(service, runs), {START_PATH: {"POST": DirectStart(service.guard, runs)}})
    app = BodyLimit(app, limit_bytes=settings.body_limit_bytes)
    if settings.cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=[*REQUEST_HEADERS, *AGENT_HEADERS],
            expose_headers=ANSWER_HEADERS,
        )
    app = HostCheck(app, hosts=[urlsplit(settings.app_url).netloc])
    return RequestTelemetry(app, metrics=service.metrics, traces=service.traces)


def rest_app(service: Service, runs: RunRoutes) -> FastAPI:
    """Return every route, without what stands before them all."""
    route_class = guarded_route(service.guard)
    updates, approvals = UpdateRoutes(runs.desk), ApprovalRoutes(service.database)
    app = FastAPI(
        title="AppService",
        telemetry=NOT_BY_FASTAPI,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        routes=[
            *health_routes(service.checks()),
            service.metrics.route(service.engine_metrics.look),
            *discovery_routes(service),
            *catalogue_routes(service.workflows, service.database, route_class=route_class),
            *run_routes(runs, route_class=route_class),
            *update_routes(updates, route_class=route_class),
            *approval_routes(approvals, route_class=route_class),
            *schedule_routes(service, route_class=route_class),
            *queue_routes(service, route_class=route_class),
            *event_routes(service, route_class=route_class),
            *dead_letter_routes(service.database, service.event_registry, route_class=route_class),
            # Before the next, whose ids would take in the word "in".
            *incoming_webhook_routes(service, route_class=route_class),
            *webhook_routes(service, route_class=route_class),
            *agent_routes(service, runs, updates, approvals),
        ],
    )
    install_openapi(app, service.settings)
    install_problem_handlers(app, unavailable=NOT_NOW)
    for kind in (PageCursorInvalid, PayloadTooLarge):
        app.add_exception_handler(kind, _answer)
    return app


async def _answer(request: Request, error: Exception) -> Response:
    return problem_response(problem_of(error), REQUEST_PREFIX + request_id(request))
