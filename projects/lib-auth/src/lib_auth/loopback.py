"""Sign-in from a terminal with the system's browser: a loopback redirect on a free port (RFC 8252)."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Self
from urllib.parse import parse_qsl

from lib_auth.client import OAuthClient, PendingAuthorization
from lib_auth.tokens import TokenSet

CALLBACK_PATH = "/callback"
MAX_REQUEST_BYTES = 16_384
READ_TIMEOUT_SECONDS = 10.0

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<style>body{{font:16px/1.5 system-ui,sans-serif;display:grid;place-items:center;min-height:90vh;margin:0}}
main{{max-width:26rem;padding:2rem;text-align:center}}</style>
<main><h1>{title}</h1><p>{text}</p></main></html>"""


class SignInTimeout(TimeoutError):
    """Nobody completed the sign-in in time."""


class LoopbackListener:
    """Listens on 127.0.0.1 for the one request that brings the authorization response."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
        self._server: asyncio.Server | None = None
        self._expected_state: str | None = None

    async def __aenter__(self) -> Self:
        # RFC 8252 section 8.3: bind the loopback interface only, by address rather than by name.
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=MAX_REQUEST_BYTES)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()

    @property
    def redirect_uri(self) -> str:
        """Where the authorization server is to send the browser."""
        if self._server is None:
            raise RuntimeError("the listener must be entered first")
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}{CALLBACK_PATH}"

    def expect(self, pending: PendingAuthorization) -> None:
        """Accept the response to `pending` only; others are turned away, so nobody can end our wait."""
        self._expected_state = pending.state

    async def answer(self, *, within_seconds: float) -> dict[str, str]:
        """Wait for the response."""
        try:
            return await asyncio.wait_for(self._answer, within_seconds)
        except TimeoutError as error:
            raise SignInTimeout(f"nobody signed in within {within_seconds:.0f} seconds; begin again") from error

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), READ_TIMEOUT_SECONDS)
            writer.write(self._respond(request))
            await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # not a browser: whoever it was, the wait goes on
        finally:
            writer.close()

    def _respond(self, request: bytes) -> bytes:
        method, _, rest = request.decode("latin-1").partition(" ")
        path, _, query = rest.partition(" ")[0].partition("?")
        if method != "GET" or path != CALLBACK_PATH:
            return _page("404 Not Found", "Nothing here", "This address only waits for a sign-in to complete.")
        answer = dict(parse_qsl(query))
        if self._expected_state is None or answer.get("state") != self._expected_state:
            return _page("400 Bad Request", "Not our sign-in", "This answer belongs to another request.")
        if not self._answer.done():
            self._answer.set_result(answer)
        if "error" in answer:
            return _page("200 OK", "Not signed in", "The sign-in was refused. You can close this window.")
        return _page("200 OK", "You are signed in", "You can close this window and go back to the terminal.")


async def sign_in(
    client: OAuthClient,
    *,
    scope: str,
    open_browser: Callable[[str], None],
    resources: Iterable[str] = (),
    resource: str | None = None,
    within_seconds: float = 300.0,
) -> TokenSet:
    """Sign a person in with the browser that `open_browser` opens (or shows the URL of).

    Raises `SignInTimeout`, `OAuthError` for a refusal, `ServerUnavailable`, `ResponseForged`.
    """
    async with LoopbackListener() as listener:
        pending = await client.begin_authorization(redirect_uri=listener.redirect_uri, scope=scope, resources=resources)
        listener.expect(pending)
        open_browser(pending.url)
        answer = await listener.answer(within_seconds=within_seconds)
        return await client.finish_authorization(pending, answer, resource=resource)


def _page(status: str, title: str, text: str) -> bytes:
    body = PAGE.format(title=title, text=text).encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\n"
        "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body
