"""A collector for tests: it takes spans by OTLP over HTTP, as a real one does, and keeps them."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class CollectedSpan:
    """A span as it came."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str  # empty for a root
    kind: int
    began_ns: int
    ended_ns: int
    has_failed: bool
    attributes: Mapping[str, Any]


class Collector:
    """Listens at `url`; `close` and `open_again` are an outage."""

    def __init__(self) -> None:
        self.received: list[CollectedSpan] = []  # all, also what came twice
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self._changed = threading.Condition()
        self._server = self._listen(0)
        self.port: int = self._server.server_address[1]

    @property
    def url(self) -> str:
        """What `OTEL_EXPORTER_OTLP_ENDPOINT` is to be."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def spans(self) -> dict[str, CollectedSpan]:
        """What came, by id."""
        return {span.span_id: span for span in self.received}

    def named(self, name: str) -> list[CollectedSpan]:
        """The spans of that name, each id once."""
        return [span for span in self.spans.values() if span.name == name]

    def wait_for(self, *names: str, seconds: float = SECONDS) -> None:
        """Wait until a span of each name has come; blocks. Raises `TimeoutError`."""
        ends_at = time.monotonic() + seconds
        with self._changed:
            while missing := set(names) - {span.name for span in self.received}:
                if not self._changed.wait(ends_at - time.monotonic()):
                    came = sorted({span.name for span in self.received})
                    raise TimeoutError(f"no span of {sorted(missing)} came in {seconds:g} s, only {came}")

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()

    def open_again(self) -> None:
        """Listen at the same address."""
        self._server = self._listen(self.port)

    def take(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Keep what a request brings."""
        request = ExportTraceServiceRequest.FromString(body)
        with self._changed:
            self.headers.append({name.lower(): value for name, value in headers.items()})
            self.bodies.append(body)
            self.received += _spans_of(request)
            self._changed.notify_all()

    def _listen(self, port: int) -> ThreadingHTTPServer:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.take(self.rfile.read(int(self.headers["content-length"])), dict(self.headers))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                """Nothing: a test's output is for what fails."""

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=server.serve_forever, args=(0.05,), name="collector", daemon=True).start()
        return server


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector inside the block."""
    collector = Collector()
    try:
        yield collector
    finally:
        collector.close()


def _spans_of(request: ExportTraceServiceRequest) -> list[CollectedSpan]:
    return [
        CollectedSpan(
            service=str(_attributes(resource_spans.resource.attributes)["service.name"]),
            name=span.name,
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_id=span.parent_span_id.hex(),
            kind=span.kind,
            began_ns=span.start_time_unix_nano,
            ended_ns=span.end_time_unix_nano,
            has_failed=span.status.code == span.status.STATUS_CODE_ERROR,
            attributes=_attributes(span.attributes),
        )
        for resource_spans in request.resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    ]


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
