import io
import json
import logging

import pytest
from httpx import ASGITransport, AsyncClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from lib_events.event import current_cause
from lib_events.telemetry import HumanFormatter, JsonFormatter, Metrics, RequestTelemetry, configure_logging, redact

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ1In0.c2lnbmF0dXJl"


def client_of(app):
    return AsyncClient(transport=ASGITransport(app, raise_app_exceptions=False), base_url="http://testserver")


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer geheim-geheim",
        f"token {JWT} rejected",
        "postgresql://evs:geheim@db/evs",
        "/callback?code=geheim&state=1",
        'grant {"refresh_token": "geheim"}',
        "client_secret=geheim&x=1",
        "SUAIBDPBAUTWCWBKIO6XHQNINK5FWJW4OHLXC3HQ2KFE4PEJUA44CNHTC4",
    ],
)
def test_secrets_are_hidden_in_text(text):
    hidden = redact(text)
    assert "[hidden]" in hidden
    assert "geheim" not in hidden
    assert JWT not in hidden
    assert "SUAIBD" not in hidden


def test_ordinary_text_stays():
    text = "step charge ended with exit code: 1, token: rejected, at http://127.0.0.1:8002/v1/runs"
    assert redact(text) == text


@pytest.mark.parametrize("formatter", [JsonFormatter("app-svc"), HumanFormatter()])
def test_secrets_are_hidden_in_fields_and_exceptions(formatter):
    with pytest.raises(ValueError, match="geheim") as raised:
        int("password=geheim")
    info = (raised.type, raised.value, raised.tb)
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "failed %s", ("Bearer geheim1",), info)
    record.headers = {"authorization": "geheim", "nested": [{"api_key": "geheim"}]}
    record.client_secret = "geheim"
    line = formatter.format(record)
    assert "geheim" not in line
    assert "ValueError" in line


def test_a_machine_reads_json_with_the_cause():
    stream = io.StringIO()
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        configure_logging("app-svc", stream=stream)
        logging.getLogger("lib_events.nats.relay").info("published", extra={"events": 3})
    finally:
        root.handlers[:], root.level = before
    line = json.loads(stream.getvalue())
    assert (line["service"], line["message"], line["events"]) == ("app-svc", "published", 3)


async def cause(_request: Request) -> JSONResponse:
    found = current_cause.get()
    return JSONResponse({"correlation": found.correlation_id, "traceparent": found.traceparent})


@pytest.fixture
def client():
    metrics = Metrics("app-svc")
    app = Starlette(routes=[Route("/runs/{id}", cause), metrics.route()])
    app.add_middleware(RequestTelemetry, metrics=metrics)
    return client_of(app)


async def test_a_request_goes_on_in_its_trace(client):
    response = await client.get("/runs/1", headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
    found = response.json()
    assert found["correlation"] == TRACE
    assert found["traceparent"].startswith(f"00-{TRACE}-")
    assert found["traceparent"].endswith("-01")
    assert "00f067aa0ba902b7" not in found["traceparent"]
    assert response.headers["x-request-id"] == TRACE


@pytest.mark.parametrize("header", ["", "00-" + "0" * 32 + "-00f067aa0ba902b7-01", "junk\t"])
async def test_a_malformed_trace_is_replaced(client, header):
    found = (await client.get("/runs/1", headers={"traceparent": header, "x-request-id": "a b"})).json()
    assert len(found["correlation"]) == 32
    assert found["correlation"] in found["traceparent"]


async def test_a_request_id_is_the_correlation_id(client):
    assert (await client.get("/runs/1", headers={"x-request-id": "req-7"})).json()["correlation"] == "req-7"


async def test_requests_are_counted_by_route_and_not_by_path(client):
    for number in range(3):
        await client.get(f"/runs/{number}")
    await client.get("/nowhere")
    page = (await client.get("/metrics")).text
    assert 'evs_http_requests_total{method="GET",route="/runs/{id}",status="200"} 3.0' in page
    assert 'route="unmatched",status="404"' in page
    assert "process_resident_memory_bytes" in page
