"""The door for agents, `POST /mcp`: the token, Host check and limits of REST, and an `Origin` that is let in."""

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING, Final

from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Message, Receive, Scope, Send

from app_svc.agents.toolbox import make_toolbox
from app_svc.approvals import ApprovalRoutes
from app_svc.json_request import JsonRequest
from app_svc.runs import RunRoutes
from app_svc.service import Service
from app_svc.settings import MCP_PATH
from app_svc.updates import UpdateRoutes
from lib_events.problem import Problem

if TYPE_CHECKING:
    from app_svc.agents.protocol import Protocol

PROTOCOL: Final = "app_svc.agents.protocol"
PARSE_ERROR: Final = -32700  # JSON-RPC 2.0 section 5.1


def agent_routes(
    service: Service, runs: RunRoutes, updates: UpdateRoutes, approvals: ApprovalRoutes
) -> list[BaseRoute]:
    """Return the route of agents, or none where they are not let in."""
    if not service.settings.mcp:
        return []
    return [Route(MCP_PATH, AgentDoor(service, runs, updates, approvals), methods=["POST"])]


class AgentDoor:
    """Lets in whom the guard knows, and hands what they ask to the protocol."""

    def __init__(self, service: Service, runs: RunRoutes, updates: UpdateRoutes, approvals: ApprovalRoutes) -> None:
        self._service = service
        self._parts = runs, updates, approvals
        self._origins = frozenset((service.settings.app_url, *service.settings.cors_origins))
        self._protocol: Protocol | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; raises the `Problem` 401, 403, 413, 415 or 503."""
        guard = self._service.agent_guard
        request = JsonRequest(scope, receive)
        self._check_origin(request)
        request.state.principal = await guard.authenticate(request)
        request.check_media_type()
        body = await request.body()
        await guard.confirm(request)  # whoever is put out may have held the body back
        try:
            await request.json()
        except Problem as problem:
            error = {"code": PARSE_ERROR, "message": problem.detail}
            await JSONResponse({"jsonrpc": "2.0", "id": None, "error": error}, 400)(scope, receive, send)
            return
        protocol = self._protocol or await self._begin()
        await protocol.serve(scope, _again(body, receive), send)

    def _check_origin(self, request: JsonRequest) -> None:
        """Streamable HTTP, security warning: or a page of strangers could ask, by a name that leads to this machine."""
        origin = request.headers.get("origin")
        if origin is not None and origin not in self._origins:
            detail = "Origin must be one of EVS_CORS_ORIGINS, or left out by what is no web page"
            raise Problem(403, "origin-refused", "Pages from there are not let in", detail)

    async def _begin(self) -> "Protocol":
        """Make the tools and load the SDK for the first agent; off the loop, which has others to serve."""
        module = await asyncio.to_thread(import_module, PROTOCOL)
        if (made := self._protocol) is None:  # of several who came first, one makes it
            service = self._service
            toolbox = make_toolbox(service.agent_guard, service.workflows, *self._parts)
            self._protocol = made = module.Protocol(toolbox, limit_bytes=service.settings.body_limit_bytes)
        return made


def _again(body: bytes, receive: Receive) -> Receive:
    """The request's body, once more for whoever reads it next, and then what comes after it."""
    given: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def read() -> Message:
        return given.pop() if given else await receive()

    return read
