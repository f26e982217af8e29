from typing import Literal

import pytest
from fastapi import FastAPI, Query
from httpx import ASGITransport, AsyncClient
from pydantic import BaseModel

from lib_events.http.limits import WHOLE_BODY, BodyLimit, HostCheck
from lib_events.problem import MEDIA_TYPE, Problem, install_problem_handlers
from lib_events.telemetry import Metrics, RequestTelemetry


def client_of(app):
    return AsyncClient(transport=ASGITransport(app, raise_app_exceptions=False), base_url="http://testserver")


class Order(BaseModel):
    amount: int


@pytest.fixture
def client():
    app = FastAPI()
    install_problem_handlers(app)

    @app.get("/problem")
    async def problem() -> None:
        raise Problem(409, "run-conflict", "The run differs", "id must be new, got a", run="a", headers={"x-why": "b"})

    @app.get("/half")
    async def half() -> None:
        raise Problem(422, detail="there is no role \ud800x")

    @app.get("/bug")
    async def bug() -> None:
        raise ValueError("password=hunter2")

    @app.post("/orders")
    async def orders(order: Order) -> Order:
        return order

    @app.post("/large-orders")
    async def large_orders(order: Order) -> Order:
        return order

    @app.get("/orders")
    async def list_orders(status: list[Literal["open", "paid"]] = Query(default=[])) -> list[str]:  # noqa: B008
        return status

    app.add_middleware(BodyLimit, limit_bytes=1000, larger={"/large-orders": 2000})
    app.add_middleware(HostCheck, hosts=["testserver"])
    app.add_middleware(RequestTelemetry, metrics=Metrics("app-svc"))
    return client_of(app)


async def chunks():
    yield b" " * 600
    yield b" " * 600


def check(response, status):
    assert response.status_code == status
    assert response.headers["content-type"] == MEDIA_TYPE
    body = response.json()
    assert body["status"] == status
    assert {"type", "title", "status", "detail", "instance"} <= body.keys()
    return body


async def test_a_problem_carries_its_fields_and_the_request_id(client):
    response = await client.get("/problem", headers={"x-request-id": "req-1"})
    assert check(response, 409) == {
        "type": "urn:evs:problem:run-conflict",
        "title": "The run differs",
        "status": 409,
        "detail": "id must be new, got a",
        "instance": "urn:evs:request:req-1",
        "run": "a",
    }
    assert response.headers["x-why"] == "b"


async def test_a_problem_may_repeat_what_json_can_say_and_utf_8_cannot(client):
    assert check(await client.get("/half"), 422)["detail"] == "there is no role \ud800x"


async def test_an_unknown_path_and_a_wrong_method_are_problems(client):
    assert check(await client.get("/nowhere"), 404)["type"] == "about:blank"
    response = await client.delete("/problem")
    check(response, 405)
    assert response.headers["allow"] == "GET"


async def test_an_unknown_error_tells_nothing_of_the_inside(client):
    response = await client.get("/bug", headers={"x-request-id": "req-2"})
    assert check(response, 500)["instance"] == "urn:evs:request:req-2"
    assert "hunter2" not in response.text
    assert "ValueError" not in response.text


async def test_invalid_input_names_the_field_and_never_repeats_it(client):
    response = await client.post("/orders", json={"amount": "hunter2"})
    body = check(response, 422)
    assert body["errors"][0]["pointer"] == "/amount"
    assert body["detail"].startswith("/amount: ")
    assert "hunter2" not in response.text


async def test_invalid_parameters_are_named_as_they_are_sent(client):
    body = check(await client.get("/orders?status=hunter2"), 422)
    assert body["errors"] == [{"parameter": "status", "detail": "Input should be 'open' or 'paid'"}]
    assert body["detail"] == "status: Input should be 'open' or 'paid'"


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_large_body_is_refused_however_it_is_sent(client, chunked):
    content = chunks() if chunked else b" " * 1200
    assert check(await client.post("/orders", content=content), 413)["limit_bytes"] == 1000


@pytest.mark.parametrize("announced", [True, False])
async def test_a_refused_body_is_read_to_its_end_or_the_connections_reset_would_swallow_the_answer(announced):
    unread = [{"type": "http.request", "body": b" " * 600, "more_body": part < 5} for part in range(1, 6)]
    unread_at_answer = []

    async def receive():
        return unread.pop(0)

    async def send(message):
        unread_at_answer.append(len(unread))

    async def app(scope, receive, send):
        while (await receive())["more_body"]:
            pass

    headers = [(b"content-length", b"3000")] if announced else []
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "query_string": b""}
    if announced:
        await BodyLimit(app, limit_bytes=1000)(scope, receive, send)
        assert unread_at_answer == [0, 0]
    else:
        with pytest.raises(Problem):
            await BodyLimit(app, limit_bytes=1000)(scope, receive, send)
        assert unread == []


@pytest.mark.parametrize("size", [1000, 1001])
async def test_a_body_that_is_there_already_is_refused_or_passed_on_as_it_is(size):
    passed = []

    async def receive():
        return {"type": "http.request", "body": b" " * size, "more_body": False}

    async def send(message):
        raise AssertionError(message)

    async def app(scope, receive, send):
        passed.append(receive)
        await receive()

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""}
    scope["extensions"] = {WHOLE_BODY: {"bytes": size}}
    if size > 1000:
        with pytest.raises(Problem):  # where it is read, so that the application answers
            await BodyLimit(app, limit_bytes=1000)(scope, receive, send)
    else:
        await BodyLimit(app, limit_bytes=1000)(scope, receive, send)
    assert (passed == [receive]) == (size == 1000)


async def test_a_path_may_have_a_larger_limit_of_its_own(client):
    headers = {"content-type": "application/json"}
    for size, path, status in (
        (1001, "/orders", 413),
        (2000, "/large-orders", 200),
        (2001, "/large-orders", 413),
        (1001, "/large-orders/", 413),
    ):
        content = b'{"amount": 1}'.ljust(size)
        assert (await client.post(path, content=content, headers=headers)).status_code == status


async def test_a_body_at_the_limit_passes(client):
    content = b'{"amount": 1}'.ljust(1000)
    assert (
        await client.post("/orders", content=content, headers={"content-type": "application/json"})
    ).status_code == 200


async def test_a_foreign_host_is_misdirected_but_probes_are_answered(client):
    check(await client.get("/problem", headers={"host": "evil.example"}), 421)
    check(await client.get("/problem", headers={"host": ""}), 400)
    assert (await client.get("/healthz", headers={"host": "10.0.0.1"})).status_code == 404
