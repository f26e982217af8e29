"""The way of spans to a collector, by OpenTelemetry's own SDK; the one module that imports it.

Spans go there in two ways. What a log tells of is sent by whoever follows it, who waits until the collector has it
(`Sender`). What only this process knows, such as a request, is kept in memory and sent by a thread now and then
(`Traces.add`): nobody waits for that, and what is kept goes with the process.
"""

import threading
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final, Self

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from lib_events.trace_context import TraceContext
from lib_events.tracing.span import Span

NANOSECONDS: Final = 1_000  # in one of our microseconds
CLOSE_MILLIS: Final = 2_000  # what is kept in memory may take so long on the way out
SCOPE: Final = InstrumentationScope("evs")
KINDS: Final = {"internal": SpanKind.INTERNAL, "server": SpanKind.SERVER, "consumer": SpanKind.CONSUMER}
UNNAMED: Final = "unknown_service"  # how the SDK calls whom nobody has named
ERROR_TYPE: Final = "error.type"


class CollectorFailed(Exception):
    """The collector did not take what it was sent; the SDK has logged why."""


class Traces:
    """Where the spans of a service go, and which of its traces are kept."""

    def __init__(self, service: str, new_exporter: Callable[[], SpanExporter] = OTLPSpanExporter) -> None:
        resource = Resource.create()
        if str(resource.attributes[SERVICE_NAME]).startswith(UNNAMED):
            resource = resource.merge(Resource({SERVICE_NAME: service}))
        self._resource = resource
        self._new_exporter = new_exporter
        self._processor = BatchSpanProcessor(new_exporter())
        self._closed = threading.Event()
        # The sampler is what OTEL_TRACES_SAMPLER says.
        self.provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self.provider.add_span_processor(self._processor)

    def install(self) -> Self:
        """Be where instrumentation in this process sends its spans, unless somebody else is."""
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            trace.set_tracer_provider(self.provider)
        return self

    def keeps(self, trace_id: str, parent: TraceContext | None, name: str) -> bool:
        """Whether a span in that trace is kept: by default what its parent says, and all that have none."""
        # Of nowhere, not None: that would be whatever this process is at.
        within = Context() if parent is None else trace.set_span_in_context(_span_of(parent), Context())
        decision = self.provider.sampler.should_sample(within, int(trace_id, 16), name).decision
        return decision is not Decision.DROP

    def add(self, span: Span) -> None:
        """Keep a span until the next ones are sent; the oldest go where the collector is away for long."""
        if not self._closed.is_set():
            self._processor.on_end(self._readable(span))

    def new_sender(self) -> "Sender":
        """For a follower of a log."""
        return Sender(self._new_exporter(), self._readable)

    def close(self) -> None:
        """Send what is kept in memory, for a moment; blocks. Closing twice is safe."""
        if not self._closed.is_set():
            self._closed.set()
            # Not `shutdown` of the SDK alone: it waits half a minute for a collector that is away.
            sending = threading.Thread(target=self.provider.shutdown, name="traces-close", daemon=True)
            sending.start()
            sending.join(CLOSE_MILLIS / 1000)

    def _readable(self, span: Span) -> ReadableSpan:
        attributes = dict(span.attributes)
        if span.error is not None:
            attributes[ERROR_TYPE] = span.error
        return ReadableSpan(
            name=span.name,
            context=_span_context(span.context),
            parent=None if span.parent is None else _span_context(span.parent),
            resource=self._resource,
            attributes=attributes,
            kind=KINDS[span.kind],
            status=Status(StatusCode.UNSET if span.error is None else StatusCode.ERROR),
            start_time=span.began_at * NANOSECONDS,
            end_time=span.ended_at * NANOSECONDS,
            instrumentation_scope=SCOPE,
        )


class Sender:
    """Sends spans for one who waits until the collector has them."""

    def __init__(self, exporter: SpanExporter, readable: Callable[[Span], ReadableSpan]) -> None:
        self._exporter = exporter
        self._readable = readable
        self._closed = threading.Event()

    def send(self, spans: Iterable[Span]) -> None:
        """Send spans; blocks. Raises `CollectorFailed`."""
        # The exporter's own requests must not be told of by instrumentation of its HTTP client: so the SDK says it.
        token = contexts.attach(contexts.set_value(contexts._SUPPRESS_INSTRUMENTATION_KEY, value=True))
        try:
            result = self._exporter.export([self._readable(span) for span in spans])
        finally:
            contexts.detach(token)
        if result is not SpanExportResult.SUCCESS:
            raise CollectorFailed("the collector did not take the spans")

    def close(self) -> None:
        """Send nothing more, and try nothing again; closing twice is safe."""
        if not self._closed.is_set():
            self._closed.set()
            self._exporter.shutdown()


def be_within(context: TraceContext) -> None:
    """Let instrumentation that runs in the present context variables find itself within that span."""
    contexts.attach(trace.set_span_in_context(_span_of(context)))


@lru_cache(maxsize=256)
def _span_context(context: TraceContext) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if context.is_sampled else TraceFlags.DEFAULT)
    return SpanContext(int(context.trace_id, 16), int(context.span_id, 16), is_remote=True, trace_flags=flags)


def _span_of(context: TraceContext) -> NonRecordingSpan:
    return NonRecordingSpan(_span_context(context))
