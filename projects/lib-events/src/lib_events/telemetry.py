"""What a service tells about itself: structured logs without secrets, causes of requests, metrics."""

import json
import logging
import os
import re
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lib_events.event import Cause, current_cause
from lib_events.http.limits import first_header
from lib_events.redaction import describe, fields_of, redact
from lib_events.trace_context import TraceContext
from lib_events.tracing.span import Attribute, Span

if TYPE_CHECKING:
    from lib_events.tracing.traces import Traces

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
# Of FastAPI's own traces, metrics and logs: what they would tell we tell ourselves, and of the other routes, too.
NOT_BY_FASTAPI: Final[Any] = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
UNTRACED = frozenset(("/healthz", "/readyz", "/metrics"))  # asked all the time, by machines


class JsonFormatter(logging.Formatter):
    """One JSON object a line, for machines."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Encode `record`."""
        cause = current_cause.get()
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": redact(record.getMessage()),
            "correlation_id": cause.correlation_id,
            "principal": cause.principal,
            "exception": redact(self.formatException(record.exc_info)) if record.exc_info else None,
        }
        known = {name: value for name, value in line.items() if value is not None}
        return json.dumps(fields_of(record) | known, ensure_ascii=False, default=str)


class HumanFormatter(logging.Formatter):
    """A line to read on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Write `record` as text."""
        moment = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        return f"{moment} {record.levelname.lower():<7} {record.name}: {describe(record)}"


def configure_logging(service: str, *, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Log to `stream` (standard error): text on a terminal, JSON elsewhere. Replaces earlier handlers."""
    target = stream or sys.stderr
    handler = logging.StreamHandler(target)
    handler.setFormatter(HumanFormatter() if target.isatty() else JsonFormatter(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):  # they bring handlers that know no redaction
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True


def cause_of(scope: Scope, traces: "Traces | None" = None) -> Cause:
    """Read `X-Request-Id` and W3C `traceparent`, making what is missing or malformed.

    The span it names is the request's own; where there are `traces`, they say whether it is kept.
    """
    fresh = os.urandom(24).hex()
    parent = parent_of(scope)
    trace_id, is_sampled = (parent.trace_id, parent.is_sampled) if parent else (fresh[:32], False)
    if traces is not None:
        is_sampled = traces.keeps(trace_id, parent, scope["method"])
    given = first_header(scope, b"x-request-id")
    return Cause(
        correlation_id=given if REQUEST_ID.fullmatch(given) else trace_id,
        traceparent=str(TraceContext(trace_id, fresh[32:], is_sampled)),
    )


def parent_of(scope: Scope) -> TraceContext | None:
    """The span within which a request was made, if it says so."""
    return TraceContext.parse(first_header(scope, b"traceparent"))


class _Request(Protocol):
    """A request to send, of whichever client."""

    @property
    def headers(self) -> "_Headers": ...


class _Headers(Protocol):
    def setdefault(self, name: str, value: str) -> object: ...


async def carry_trace(request: _Request) -> None:
    """Let a request to another service of ours be part of the trace it is made in: a hook of an HTTP client."""
    traceparent = current_cause.get().traceparent
    if traceparent is not None:
        request.headers.setdefault("traceparent", traceparent)


class Metrics:
    """The instruments of one service, and the page that shows them."""

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.service = service
        self._series: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}  # as many as there are answers
        self.requests = Counter(
            "evs_http_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self.request_seconds = Histogram(
            "evs_http_request_seconds",
            "Time until the last byte of the answer.",
            ("method", "route"),
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
            registry=self.registry,
        )

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        found = self._series.get((method, route, status))
        if found is None:
            counted = self.requests.labels(method, route, str(status))
            found = self._series[method, route, status] = counted, self.request_seconds.labels(method, route)
        found[0].inc()
        found[1].observe(seconds)

    def route(self, look: Callable[[], Awaitable[None]] | None = None) -> Route:
        """The route `/metrics`; `look` is awaited before each page: it finds out what the page says."""

        async def metrics(_request: Request) -> Response:
            if look is not None:
                await look()
            return Response(generate_latest(self.registry), headers={"content-type": CONTENT_TYPE_LATEST})

        return Route("/metrics", metrics)


class RequestTelemetry:
    """Gives every request its cause and id, counts, times and traces it; the outermost middleware."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, traces: "Traces | None" = None) -> None:
        self._app = app
        self._metrics = metrics
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        cause = cause_of(scope, self._traces)
        scope.setdefault("state", {})["request_id"] = cause.correlation_id
        request_id = (cause.correlation_id or "").encode()
        status = 500
        began = time.perf_counter()

        async def tagged(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
            await send(message)

        before = current_cause.set(cause)
        try:
            await self._app(scope, receive, tagged)
        finally:
            current_cause.reset(before)
            self._tell(scope, cause, status, time.perf_counter() - began)

    def _tell(self, scope: Scope, cause: Cause, status: int, seconds: float) -> None:
        # The route's pattern, never the path: ids would make a series each, and some paths hold what opens doors.
        route = getattr(scope.get("route"), "path", None)
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._metrics.count(method, route or "unmatched", status, seconds)
        if self._traces is not None and route not in UNTRACED:
            context = TraceContext.parse(cause.traceparent)
            if context is not None and context.is_sampled:
                self._traces.add(span_of_request(scope, context, route, status, seconds))


def span_of_request(scope: Scope, context: TraceContext, route: str | None, status: int, seconds: float) -> Span:
    """The span of a request that has just been answered, after OpenTelemetry's conventions for HTTP servers.

    Neither path nor query are in it, nor who asked or from where.
    """
    is_known, ended_at = scope["method"] in METHODS, time.time_ns() // 1_000
    attributes: dict[str, Attribute] = {
        "http.request.method": scope["method"] if is_known else "_OTHER",
        "http.response.status_code": status,
        "url.scheme": scope.get("scheme", "http"),
    }
    if route is not None:
        attributes["http.route"] = route
    method = scope["method"] if is_known else "HTTP"
    return Span(
        name=method if route is None else f"{method} {route}",
        context=context,
        parent=parent_of(scope),
        began_at=ended_at - round(seconds * 1e6),
        ended_at=ended_at,
        kind="server",
        attributes=attributes,
        error=str(status) if status >= 500 else None,
    )
