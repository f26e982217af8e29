"""What a service tells about itself: structured logs without secrets, causes of requests, metrics."""

import json
import logging
import os
import re
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TextIO

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lib_events.event import Cause, current_cause
from lib_events.http.limits import first_header
from lib_events.redaction import describe, fields_of, redact

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# W3C Trace Context section 3.2: version 00, lower-case hex; all zeros are invalid.
TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")


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


def cause_of(scope: Scope) -> Cause:
    """Read `X-Request-Id` and W3C `traceparent`, making what is missing or malformed."""
    fresh = os.urandom(24).hex()
    trace = TRACEPARENT.fullmatch(first_header(scope, b"traceparent"))
    trace_id, flags = (trace[1], trace[3]) if trace else (fresh[:32], "00")
    given = first_header(scope, b"x-request-id")
    return Cause(
        correlation_id=given if REQUEST_ID.fullmatch(given) else trace_id,
        traceparent=f"00-{trace_id}-{fresh[32:]}-{flags}",
    )


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
    """Gives every request its cause and id, and counts and times it; the outermost middleware."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        cause = cause_of(scope)
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
            self._count(scope, status, time.perf_counter() - began)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        # The route's pattern, never the path: ids would make a series each.
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._metrics.count(method, route, status, seconds)
