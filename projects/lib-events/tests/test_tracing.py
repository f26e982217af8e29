"""Traces: whether they are wanted, and the spans of requests, as a real receiver of OTLP gets them."""

import subprocess
import sys
import time

import pytest
from httpx import ASGITransport, AsyncClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from lib_events.event import current_cause
from lib_events.settings import SettingsRejected
from lib_events.telemetry import Metrics, RequestTelemetry, carry_trace
from lib_events.testing.collector import Collector, collecting
from lib_events.trace_context import TraceContext, trace_named
from lib_events.tracing.environment import find_traces, open_traces
from lib_events.tracing.span import Span
from lib_events.tracing.traces import CollectorFailed

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
SERVER = 2  # SpanKind of the protocol


@pytest.fixture
def collector(monkeypatch):
    with collecting() as found:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield found


async def answer(request: Request) -> JSONResponse:
    if "broken" in request.query_params:
        raise RuntimeError("geheim")
    return JSONResponse({"traceparent": current_cause.get().traceparent})


def application(traces):
    app = Starlette(routes=[Route("/orders/{id}", answer), Route("/healthz", answer)])
    transport = ASGITransport(RequestTelemetry(app, metrics=Metrics("t"), traces=traces), raise_app_exceptions=False)
    return AsyncClient(transport=transport, base_url="http://testserver")


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_there_are_no_traces_unless_a_collector_is_named(environment):
    assert find_traces("t", environment=environment) is None


def test_another_protocol_than_ours_is_refused_with_what_to_do():
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    with pytest.raises(SettingsRejected, match="must be http/protobuf, got grpc"):
        find_traces("t", environment=environment)


def test_who_names_a_collector_without_the_library_is_told_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "lib_events.tracing.traces", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(SettingsRejected, match=r"install lib-events\[opentelemetry\]"):
        find_traces("t", environment={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"})


def test_without_a_collector_nothing_of_opentelemetry_is_imported():
    code = (
        "import sys, lib_events.telemetry, lib_events.tracing.environment as e; assert e.find_traces('t') is None; "
        "assert not [name for name in sys.modules if name.startswith(('opentelemetry', 'google'))]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={})


async def test_a_request_is_a_span_with_the_ids_that_its_logs_and_events_have(collector: Collector):
    async with open_traces("shop") as traces, application(traces) as http:
        told = await http.get("/orders/7?code=geheim", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
        await http.get("/healthz")
    own = TraceContext.parse(told.json()["traceparent"])
    (span,) = collector.received
    assert (span.service, span.name, span.kind) == ("shop", "GET /orders/{id}", SERVER)
    assert (span.trace_id, span.parent_id, span.span_id) == (TRACE, PARENT, own.span_id)
    assert own.is_sampled
    assert span.attributes == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/orders/{id}",
        "url.scheme": "http",
    }
    assert not any(b"geheim" in body or b"orders/7" in body for body in collector.bodies)


async def test_a_request_that_crashes_has_failed_and_does_not_say_how(collector: Collector):
    async with open_traces("shop") as traces, application(traces) as http:
        assert (await http.get("/orders/7?broken")).status_code == 500
    (span,) = collector.received
    assert span.has_failed
    assert span.attributes["error.type"] == "500"
    assert not any(b"geheim" in body for body in collector.bodies)


async def test_a_trace_that_nobody_keeps_elsewhere_is_not_kept_here(collector: Collector):
    async with open_traces("shop") as traces, application(traces) as http:
        told = await http.get("/orders/7", headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    assert told.json()["traceparent"].endswith("-00")
    assert collector.received == []


async def test_the_sampler_of_the_environment_decides(collector: Collector, monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    async with open_traces("shop") as traces, application(traces) as http:
        await http.get("/orders/7", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    assert collector.received == []


async def test_name_headers_and_attributes_are_those_of_the_environment(collector: Collector, monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop-of-berlin")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=abc")
    async with open_traces("shop") as traces, application(traces) as http:
        await http.get("/orders/7")
    assert collector.received[0].service == "shop-of-berlin"
    assert collector.headers[0]["x-key"] == "abc"


async def test_a_request_to_another_service_carries_the_trace(collector: Collector):
    async with AsyncClient(event_hooks={"request": [carry_trace]}, transport=ASGITransport(Starlette())) as http:
        sent = (await http.get("http://other/")).request
        assert "traceparent" not in sent.headers
    async with open_traces("shop") as traces:
        seen = []

        async def forwards(request: Request) -> JSONResponse:
            transport = ASGITransport(Starlette())
            async with AsyncClient(event_hooks={"request": [carry_trace]}, transport=transport) as http:
                seen.append((await http.get("http://other/")).request.headers["traceparent"])
            return JSONResponse({})

        app = Starlette(routes=[Route("/", forwards)])
        app = RequestTelemetry(app, metrics=Metrics("t"), traces=traces)
        async with AsyncClient(transport=ASGITransport(app), base_url="http://testserver") as http:
            await http.get("/")
    (span,) = collector.received
    assert seen == [f"00-{span.trace_id}-{span.span_id}-01"]


def test_who_sends_what_a_log_tells_hears_that_the_collector_is_away(collector: Collector):
    sender = find_traces("shop").new_sender()
    context = TraceContext(trace_named("a"), "1" * 16, is_sampled=True)
    span = Span(name="run a", context=context, parent=None, began_at=1, ended_at=2)
    collector.close()
    with pytest.raises(CollectorFailed):
        sender.send([span])
    collector.open_again()
    sender.send([span])
    assert [found.name for found in collector.received] == ["run a"]
    assert (collector.received[0].began_ns, collector.received[0].ended_ns) == (1_000, 2_000)
    sender.close()
    sender.close()


async def test_a_collector_that_is_away_holds_nobody_up_for_long(collector: Collector, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "30")
    collector.close()
    async with open_traces("shop") as traces, application(traces) as http:
        assert (await http.get("/orders/7")).status_code == 200
        began = time.monotonic()
    assert time.monotonic() - began < 10
    collector.open_again()
