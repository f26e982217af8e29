"""The wire finds endpoints by path and method, and makes an answer of what they raise."""

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from lib_events.http.wire import Wire
from lib_events.problem import install_problem_handlers


class Refused(Exception):
    """What one of the handlers is for."""


class RefusedNow(Refused):
    """Which the same handler is for."""


async def home(request):
    return PlainTextResponse(request.scope["route"].path)


async def refuse(_request):
    raise RefusedNow


async def fail(_request):
    raise RuntimeError("a secret of the inside")


async def refused(_request, _error):
    return PlainTextResponse("refused", 400)


@pytest.fixture
def http():
    endpoints = {"/": {"GET": home}, "/refuse": {"GET": refuse}, "/fail": {"GET": fail}}
    app = Starlette(routes=[Route(path, methods["GET"]) for path, methods in endpoints.items()])
    install_problem_handlers(app)
    app.add_exception_handler(Refused, refused)
    return httpx.AsyncClient(transport=httpx.ASGITransport(Wire(app, endpoints)), base_url="http://wire.test")


async def test_an_endpoint_knows_its_route(http):
    assert (await http.get("/")).text == "/"


async def test_an_error_is_answered_by_the_handler_of_its_nearest_class(http):
    answer = await http.get("/refuse")
    assert (answer.status_code, answer.text) == (400, "refused")


async def test_a_failure_is_a_problem_that_keeps_its_reason(http):
    answer = await http.get("/fail")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "inside" not in answer.text


async def test_what_is_not_there_is_left_to_starlette(http):
    assert (await http.get("/nowhere")).status_code == 404
    assert (await http.post("/")).status_code == 405
