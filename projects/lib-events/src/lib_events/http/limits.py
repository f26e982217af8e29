"""What a request may be before anybody reads it: bounded in size and time, and meant for this host."""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lib_events.problem import REQUEST_PREFIX, Problem, problem_response, request_id

MEBIBYTE = 1024 * 1024
DISCARD_BYTES = 64 * MEBIBYTE
DISCARD_SECONDS = 5.0
BODY_SECONDS = 30.0  # for a body to come, and one more for each of what follows that has
BODY_BYTES_PER_SECOND = 16 * 1024
WHOLE_BODY = "evs.whole_body"  # an ASGI extension, of a request that was all there when it came: its body's size
PROBE_PATHS = frozenset(("/healthz", "/readyz", "/metrics"))  # asked by address, and they tell no secret


def headers_of(scope: Scope, name: bytes) -> list[str]:
    """Return the values of a request's header; servers give names in lower case (ASGI)."""
    return [value.decode("latin-1") for header, value in scope["headers"] if header == name]


def first_header(scope: Scope, name: bytes) -> str:
    """Return the value of a request's header, the first one, or nothing."""
    for header, value in scope["headers"]:
        if header == name:
            return bytes(value).decode("latin-1")
    return ""


class BodyLimit:
    """Answers 413 to a body over `limit_bytes`, announced or not; `larger` are paths with limits of their own.

    And 408 to one that is held back: whoever waits for it keeps what it has read.
    """

    def __init__(
        self, app: ASGIApp, *, limit_bytes: int = MEBIBYTE, larger: Mapping[str, int] = MappingProxyType({})
    ) -> None:
        self._app = app
        self._limit_bytes = limit_bytes
        self._larger = larger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._larger.get(scope["path"], self._limit_bytes)
        whole = scope.get("extensions", {}).get(WHOLE_BODY)
        if whole is not None and whole["bytes"] <= limit:
            await self._app(scope, receive, send)  # nothing to count is left, and nothing to wait for
            return
        announced = first_header(scope, b"content-length")
        if announced.isdigit() and int(announced) > limit:
            if not first_header(scope, b"expect"):  # who waits for 100 Continue has sent nothing yet
                await _discard(receive)
            await _refuse(_too_large(limit), scope, receive, send)
            return
        received, is_whole = 0, False
        loop = asyncio.get_running_loop()
        due = loop.time() + BODY_SECONDS

        async def counted() -> Message:
            nonlocal received, is_whole
            if is_whole:
                return await receive()  # what comes after is the end of the connection, and has no hurry
            try:
                async with asyncio.timeout_at(due + received / BODY_BYTES_PER_SECOND):
                    message = await receive()
            except TimeoutError:
                raise _too_slow() from None
            received, is_whole = received + len(message.get("body", b"")), not message.get("more_body")
            if received > limit:
                if not is_whole:
                    await _discard(receive)
                # Raised where the application reads, so that its own handler answers.
                raise _too_large(limit)
            return message

        await self._app(scope, counted, send)


def _too_large(limit_bytes: int) -> Problem:
    return Problem(
        413,
        "body-too-large",
        "The body is too large",
        f"body must be at most {limit_bytes} bytes; send less at once",
        # RFC 9110 section 15.5.14: the server may close; the rest of the body is not wanted.
        headers={"connection": "close"},
        limit_bytes=limit_bytes,
    )


def _too_slow() -> Problem:
    return Problem(
        408,
        "body-too-slow",
        "The body did not come",
        f"body must come within {BODY_SECONDS:.0f} s and at {BODY_BYTES_PER_SECOND} bytes a second; send it again",
        headers={"connection": "close"},  # RFC 9110 section 15.5.9
    )


class HostCheck:
    """Answers 421 to a `Host` that is not ours: DNS rebinding and misrouted requests end here."""

    def __init__(self, app: ASGIApp, *, hosts: Iterable[str], exempt: frozenset[str] = PROBE_PATHS) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._exempt = exempt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        problem = None if scope["type"] == "lifespan" or scope["path"] in self._exempt else self._check(scope)
        if problem is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await _refuse(problem, scope, receive, send)

    def _check(self, scope: Scope) -> Problem | None:
        hosts = headers_of(scope, b"host")
        # RFC 9112 section 3.2: exactly one Host, or the request is malformed.
        if len(hosts) != 1 or not hosts[0]:
            return Problem(400, "host-missing", detail=f"request must have one Host header, got {len(hosts)}")
        if hosts[0].lower() not in self._hosts:
            # RFC 9110 section 15.5.20
            return Problem(421, "host-unknown", detail="Host must be a name of this service; use its configured URL")
        return None


async def _discard(receive: Receive) -> None:
    """Read on for a while without keeping anything.

    Closing a connection with unread data resets it, and the client would lose the answer that says why.
    """
    discarded = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            while discarded < DISCARD_BYTES:
                message = await receive()
                discarded += len(message.get("body", b""))
                if not message.get("more_body"):
                    return


async def _refuse(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    instance = REQUEST_PREFIX + request_id(HTTPConnection(scope))
    await problem_response(problem, instance)(scope, receive, send)
