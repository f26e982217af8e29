"""Serving HTTP: taking the port, starting, ending what would last for ever, and stopping."""

import asyncio
import socket

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from lib_events.http.server import HttpServer, PortTaken, listen, running_server, url_at
from lib_events.settings import SettingsRejected


def test_a_taken_port_is_an_error_that_names_the_option():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(PortTaken, match="--port or EVS_APP_PORT"):
        listen("127.0.0.1", taken.getsockname()[1], variable="EVS_APP_PORT")


def test_an_address_of_another_machine_is_an_error_that_names_the_settings():
    with pytest.raises(SettingsRejected, match="EVS_HOST and EVS_APP_PORT must name an address of this machine"):
        listen("203.0.113.1", 0, variable="EVS_APP_PORT")


def test_answers_do_not_wait_for_delayed_acknowledgements():
    with listen("127.0.0.1", 0, variable="EVS_APP_PORT") as listener:
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        port = listener.getsockname()[1]
        assert url_at("http://127.0.0.1:0", listener) == f"http://127.0.0.1:{port}"
        assert url_at("https://evs.example", listener) == "https://evs.example"


async def test_an_idle_connection_is_ended_by_the_client_first():
    async def on_stop():
        pass

    server = HttpServer(Starlette(), drain_seconds=1, on_stop=on_stop)
    assert server.config.timeout_keep_alive > 60 > httpx.Limits().keepalive_expiry  # of load balancers, and of clients


async def test_stopping_ends_what_would_last_for_ever_and_finishes_the_rest():
    asked, ending = asyncio.Event(), asyncio.Event()

    async def held(_request):
        asked.set()
        await ending.wait()
        return PlainTextResponse("finished")

    async def on_stop():
        ending.set()

    app = Starlette(routes=[Route("/held", held)])
    with listen("127.0.0.1", 0, variable="EVS_APP_PORT") as listener:
        url = url_at("http://127.0.0.1:0", listener)
        server = HttpServer(app, drain_seconds=5, on_stop=on_stop)
        async with running_server(server, listener), httpx.AsyncClient() as http:
            answer = asyncio.create_task(http.get(f"{url}/held"))
            await asyncio.wait_for(asked.wait(), 10)
            server.stop()
            assert (await asyncio.wait_for(answer, 10)).text == "finished"
            await asyncio.wait_for(server.ended(), 10)


async def test_stopping_twice_waits_for_nobody():
    asked = asyncio.Event()

    async def for_ever(_request):
        asked.set()
        await asyncio.Event().wait()

    async def on_stop(): ...

    app = Starlette(routes=[Route("/", for_ever)])
    with listen("127.0.0.1", 0, variable="EVS_APP_PORT") as listener:
        server = HttpServer(app, drain_seconds=60, on_stop=on_stop)
        async with asyncio.timeout(20), running_server(server, listener), httpx.AsyncClient() as http:
            answer = asyncio.create_task(http.get(url_at("http://127.0.0.1:0", listener), timeout=30))
            await asked.wait()
            server.stop()
            server.stop()
            await server.ended()
            answer.cancel()
