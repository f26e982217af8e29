"""What a client may send around a body, and how long it may take; over a real connection."""

import asyncio
from contextlib import asynccontextmanager
from itertools import repeat

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from lib_events.http import bounded as bounded_http
from lib_events.http import limits as http_limits
from lib_events.http.limits import WHOLE_BODY, BodyLimit
from lib_events.http.server import HttpServer, listen, running_server
from lib_events.problem import install_problem_handlers

PATIENCE = 10
HEAD = b"POST /echo HTTP/1.1\r\nhost: here\r\n"


async def echo(request: Request):
    return PlainTextResponse((await request.body()).decode())


async def ignore(_request):
    return PlainTextResponse("no matter")


async def weigh(request: Request):
    """What is known of the body before any of it is read."""
    return PlainTextResponse(str(request.scope.get("extensions", {}).get(WHOLE_BODY)))


@asynccontextmanager
async def connected():
    app = Starlette(
        routes=[
            Route("/echo", echo, methods=["POST"]),
            Route("/ignore", ignore, methods=["GET", "POST"]),
            Route("/weigh", weigh, methods=["GET", "POST"]),
        ]
    )
    install_problem_handlers(app)
    server = HttpServer(BodyLimit(app), drain_seconds=1, on_stop=lambda: asyncio.sleep(0))
    with listen("127.0.0.1", 0, variable="EVS_APP_PORT") as listener:
        async with running_server(server, listener):
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            try:
                yield reader, writer
            finally:
                writer.close()


async def rest(reader):
    """What comes until the server hangs up."""
    async with asyncio.timeout(PATIENCE):
        return await reader.read()


async def answer(reader):
    async with asyncio.timeout(PATIENCE):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        return head + await reader.readexactly(int(length.split(b":")[1]))


async def is_cut_off(writer, pieces):
    """Send until the server hangs up; returns whether it did."""
    async with asyncio.timeout(PATIENCE):
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            return True
    return False


@pytest.mark.parametrize(
    "start",
    [
        b"GET /",
        HEAD + b"x-long: ",
        HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-trailer: ",
        HEAD + b"transfer-encoding: chunked\r\n\r\n5;extension=",
    ],
    ids=["url", "header", "trailer", "chunk extension"],
)
async def test_what_is_around_a_body_has_an_end(start):
    async with connected() as (_, writer):
        assert await is_cut_off(writer, (start, *repeat(b"x" * 60_000, 300)))


async def test_a_head_that_is_too_large_is_told_so():
    async with connected() as (reader, writer), asyncio.timeout(PATIENCE):
        writer.write(HEAD)
        told = asyncio.create_task(reader.readline())
        while not told.done():
            writer.write(b"x-many: " + b"y" * 1000 + b"\r\n")
            await asyncio.sleep(0)  # to the server, which reads it
        assert await told == b"HTTP/1.1 431 Request Header Fields Too Large\r\n"


async def test_many_small_chunks_are_a_body():
    async with connected() as (reader, writer):
        writer.write(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        for _ in range(4):
            writer.write(b"1\r\nx\r\n" * 20_000)
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        assert (await answer(reader)).endswith(b"x" * 80_000)


@pytest.mark.parametrize("sent", [b"", b"GET / HT", HEAD])
async def test_a_head_that_does_not_come_is_not_waited_for(monkeypatch, sent):
    monkeypatch.setattr(bounded_http, "HEAD_SECONDS", 0.2)
    async with connected() as (reader, writer):
        writer.write(sent)
        assert (await rest(reader)).startswith(b"HTTP/1.1 408 Request Timeout\r\n" if sent else b"")


async def test_a_second_head_that_does_not_come_is_not_waited_for_either(monkeypatch):
    monkeypatch.setattr(bounded_http, "HEAD_SECONDS", 0.2)
    async with connected() as (reader, writer):
        writer.write(b"GET /ignore HTTP/1.1\r\nhost: here\r\n\r\n")
        assert b"no matter" in await answer(reader)
        writer.write(b"GET /ign")
        assert (await rest(reader)).startswith(b"HTTP/1.1 408 ")


async def test_a_body_that_is_held_back_is_refused(monkeypatch):
    monkeypatch.setattr(http_limits, "BODY_SECONDS", 0.2)
    async with connected() as (reader, writer):
        writer.write(HEAD + b"content-length: 5\r\n\r\nhel")
        told = await rest(reader)
    assert told.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"urn:evs:problem:body-too-slow" in told


async def test_a_body_that_nobody_wanted_keeps_no_connection(monkeypatch):
    monkeypatch.setattr(bounded_http, "HEAD_SECONDS", 0.2)
    async with connected() as (reader, writer):
        writer.write(HEAD.replace(b"/echo", b"/ignore") + b"content-length: 500\r\n\r\nhel")
        assert b"no matter" in await answer(reader)
        writer.write(b"l")
        assert await rest(reader) == b""


async def test_a_slow_body_that_comes_is_taken(monkeypatch):
    """Each second's worth of bytes earns a second: the deadline is no limit to what may be sent."""
    monkeypatch.setattr(http_limits, "BODY_SECONDS", 0)
    monkeypatch.setattr(http_limits, "BODY_BYTES_PER_SECOND", 1)
    async with connected() as (reader, writer):
        writer.write(HEAD + b"expect: 100-continue\r\ncontent-length: 12\r\n\r\nhello ")
        async with asyncio.timeout(PATIENCE):
            await reader.readuntil(b"100 Continue\r\n\r\n")  # it is being read
        writer.write(b"world!")
        assert (await answer(reader)).endswith(b"hello world!")


@pytest.mark.parametrize(
    ("sent", "size"),
    [
        (b"GET /weigh HTTP/1.1\r\nhost: here\r\n\r\n", 0),
        (b"POST /weigh HTTP/1.1\r\nhost: here\r\ncontent-length: 5\r\n\r\nhello", 5),
        (
            b"POST /weigh HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            5,
        ),
    ],
    ids=["nothing", "announced", "in chunks"],
)
async def test_what_has_come_with_its_head_is_known_to_be_whole(sent, size):
    async with connected() as (reader, writer):
        writer.write(sent + sent)  # the second one waits for the first
        for _ in range(2):
            assert (await answer(reader)).endswith(f"{{'bytes': {size}}}".encode())


async def test_what_is_still_to_come_is_not():
    async with connected() as (reader, writer):
        writer.write(HEAD.replace(b"/echo", b"/weigh") + b"content-length: 5\r\n\r\nhel")
        assert (await answer(reader)).endswith(b"None")


async def test_a_request_that_changes_to_another_protocol_is_answered_all_the_same():
    async with connected() as (reader, writer):
        upgrade = b"GET /ignore HTTP/1.1\r\nhost: here\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        writer.write(upgrade + b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            assert (await reader.readline()).startswith(b"HTTP/1.1 ")
