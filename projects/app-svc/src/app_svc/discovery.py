"""What anybody may read: where to sign in, which operations and events there are."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app_svc.permissions import DECIDE, PUBLISH_EVENTS, READ, READ_EVENTS, RULES, RUN, Permission
from app_svc.progress import RUN_PROGRESSED
from app_svc.service import IMPORTED_FROM, Service
from app_svc.settings import MCP_PATH, METADATA_PATH, SERVICE, AppSettings
from lib_auth import events as account_events
from lib_events.contracts.asyncapi import HttpServer, HttpWay, describe_service
from lib_events.event import EventRegistry, is_reserved

VERSION = "1.0.0"
SECURITY = "oauth"
# What the tools for agents take. A client asks for all of it, and is given what it is registered for.
AGENT_SCOPES = frozenset(permission.scope for permission in (READ, RUN, DECIDE))


def discovery_routes(service: Service) -> list[Route]:
    """Return the routes of the documents that are not OpenAPI."""
    settings = service.settings

    @cache
    def asyncapi() -> dict[str, Any]:
        return describe_events(
            service.event_registry, service.contracts, app_url=settings.app_url, auth_url=settings.auth_url
        )

    async def show_asyncapi(_request: Request) -> Response:
        return JSONResponse(asyncapi())

    scopes = {permission.scope for permission in _permissions()}
    resource = describe_resource(settings, settings.app_url, "AppService", scopes)
    routes = [Route("/asyncapi.json", show_asyncapi), _metadata_route(METADATA_PATH, resource)]
    if settings.mcp:
        for_agents = describe_resource(settings, settings.mcp_url, "Workflows as tools for agents", AGENT_SCOPES)
        routes.append(_metadata_route(METADATA_PATH + MCP_PATH, for_agents))
    return routes


def describe_resource(settings: AppSettings, url: str, name: str, scopes: Iterable[str]) -> dict[str, Any]:
    """Where clients of `url` sign in, and for which scopes (RFC 9728 section 2)."""
    return {
        "resource": url,
        "authorization_servers": [settings.auth_url],
        "scopes_supported": sorted(scopes),
        "bearer_methods_supported": ["header"],
        "resource_name": name,
    }


def _metadata_route(path: str, document: Mapping[str, Any]) -> Route:
    async def show(_request: Request) -> Response:
        # Any origin may find out where to sign in.
        return JSONResponse(document, headers={"access-control-allow-origin": "*", "cache-control": "max-age=300"})

    return Route(path, show)


def describe_events(
    registry: EventRegistry, contracts: Mapping[str, int], *, app_url: str, auth_url: str
) -> dict[str, Any]:
    """Return the AsyncAPI document: events on NATS, and over HTTP."""
    imported = {kind.name for kind in account_events.ALL}
    sent = [kind for kind in registry if kind.name not in imported]
    own = [kind for kind in sent if not is_reserved(kind.name)]
    follow = "Server-sent events, each with its cursor as id; `Last-Event-ID` goes on after it"
    ways = [
        HttpWay(
            "feed",
            "GET",
            "/v1/events",
            [*registry],
            READ_EVENTS.scope,
            f"Follow the event log. {follow}.",
            query=("types", "subject", "correlation", "after"),
        ),
        HttpWay(
            "run",
            "GET",
            "/v1/runs/{run}/events",
            [*sent, RUN_PROGRESSED],
            READ.scope,
            f"Follow a run and its live progress. {follow}.",
        ),
        HttpWay(
            "publish",
            "POST",
            "/v1/events",
            own,
            PUBLISH_EVENTS.scope,
            "Publish events in the CloudEvents HTTP binding: structured, binary or batch.",
        ),
    ]
    return describe_service(
        SERVICE,
        version=VERSION,
        sent=sent,
        received={IMPORTED_FROM: account_events.ALL},
        contracts=contracts,
        http=HttpServer(app_url, auth_url, ways),
    )


def describe_api(app: FastAPI, settings: AppSettings) -> dict[str, Any]:
    """Return the OpenAPI document with the scope and role that each operation takes."""
    document = get_openapi(title="AppService", version=VERSION, routes=app.routes)
    document["servers"] = [{"url": settings.app_url}]
    document["components"].setdefault("securitySchemes", {})[SECURITY] = {
        "type": "openIdConnect",
        "openIdConnectUrl": f"{settings.auth_url}/.well-known/openid-configuration",
    }
    document["components"]["schemas"]["Problem"] = _problem_schema()
    for (method, path), rule in RULES.items():
        operation = document["paths"].get(path, {}).get(method.lower())
        if operation is None:
            continue
        either = [rule.own] if rule.all is None else [rule.own, rule.all]
        operation["security"] = [{SECURITY: [permission.scope]} for permission in either]
        needs = " or ".join(f"scope `{permission.scope}` and role `{permission.role}`" for permission in either)
        operation["description"] = f"{operation.get('description', '')}\n\nNeeds {needs}.".strip()
        operation["responses"] |= _problems()
    return document


def install_openapi(app: FastAPI, settings: AppSettings) -> None:
    """Let `app` answer with that document, made once."""
    cached: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not cached:
            cached.update(describe_api(app, settings))
        return cached

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def _permissions() -> list[Permission]:
    return [permission for rule in RULES.values() for permission in (rule.own, rule.all) if permission is not None]


def _problem_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "RFC 9457",
        "required": ["type", "title", "status", "detail", "instance"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "instance": {"type": "string"},
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "pointer": {"type": "string"},
                        "parameter": {"type": "string"},
                        "detail": {"type": "string"},
                    },
                },
            },
        },
        "additionalProperties": True,
    }


def _problems() -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    told = {
        "401": "No token, or none that is good here",
        "403": "The token's scope or the person's role does not reach that far",
        "422": "Something in the request is not valid; `errors` names it",
        "503": "Nobody can say right now whether the token is good",
    }
    return {status: {"description": text, "content": content} for status, text in told.items()}
