"""The wire: paths that are fixed are looked up, their endpoints asked, and what these raise becomes an answer.

Starlette's application would try one route after another, and wraps what it calls in layer upon layer; a grant would
pay more for them than for its signature. Paths with parameters, methods that a path does not have, and whatever is not
there are left to it.
"""

from collections.abc import Awaitable, Callable, Mapping

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

type Endpoint = Callable[[Request], Awaitable[Response]]


class Wire:
    """Answers for the endpoints of fixed paths, by method, and lets `starlette` answer for everything else.

    The error handlers of `starlette` count for both: an error is answered by the handler of its nearest class.
    """

    def __init__(self, starlette: Starlette, endpoints: Mapping[str, Mapping[str, Endpoint]]) -> None:
        self._starlette = starlette
        self._endpoints = endpoints
        self._routes = {route.path: route for route in starlette.routes if isinstance(route, Route)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        methods = self._endpoints.get(scope["path"]) if scope["type"] == "http" else None
        endpoint = methods.get(scope["method"]) if methods is not None else None
        if endpoint is None:
            await self._starlette(scope, receive, send)
            return
        scope["app"], scope["route"] = self._starlette, self._routes[scope["path"]]  # as Starlette does
        request = Request(scope, receive)
        try:
            response = await endpoint(request)
        except Exception as error:  # noqa: BLE001 - one of the handlers is for any
            response = await self._answer(request, error)
        await response(scope, receive, send)

    async def _answer(self, request: Request, error: Exception) -> Response:
        handlers = self._starlette.exception_handlers
        handler = next(handlers[kind] for kind in type(error).__mro__ if kind in handlers)
        response: Response = await handler(request, error)
        return response
