"""The feed over HTTP: server-sent events that resume, stay alive, and end with what authorised them."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lib_events.event_log import Cursor, CursorRejected
from lib_events.feed import Allowed, Feed, FeedClosed, FeedLagged, Filter, Follower
from lib_events.problem import Problem

HEARTBEAT_SECONDS = 15.0
CHECK_SECONDS = 1.0  # how late an expiry or a revocation ends a stream
SEND_SECONDS = 30.0  # a client that reads nothing for so long is gone
HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # proxies must pass events on as they come
}


async def sse_response(
    request: Request,
    feed: Feed,
    *,
    types: Sequence[str] = (),
    subject: str | None = None,
    correlation: str | None = None,
    allowed: Allowed | None = None,
    expires_at: datetime | None = None,
    closed: Callable[[], bool] | None = None,
) -> Response:
    """Stream the feed after `Last-Event-ID` (or `after`), else from now on.

    It ends at `expires_at` and once `closed()` is true, both with an event `end`. Raises a 400 `Problem` for
    a cursor that cannot be one, a 410 for one of another epoch.
    """
    text = request.headers.get("last-event-id") or request.query_params.get("after")
    try:
        cursor = await feed.resolve(text)
    except CursorRejected as error:
        status = 410 if error.reason == "other_epoch" else 400
        raise Problem(status, f"cursor-{error.reason.replace('_', '-')}", detail=error.detail) from error
    wanted = Filter(types=types, subject=subject, correlation=correlation, allowed=allowed)
    return EventStream(feed, cursor, wanted, expires_at=expires_at, closed=closed)


class EventStream(Response):
    """One open stream: an ASGI application of its own, because only it knows when to stop."""

    def __init__(
        self,
        feed: Feed,
        cursor: Cursor,
        wanted: Filter,
        *,
        expires_at: datetime | None,
        closed: Callable[[], bool] | None,
    ) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._feed = feed
        self._cursor = cursor
        self._wanted = wanted
        self._expires_at = expires_at
        self._closed = closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's
        """Stream until the client goes, the authorisation ends or the service stops."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        with self._feed.follower(self._cursor, self._wanted) as follower:
            gone = asyncio.create_task(_wait_for_disconnect(receive))
            gone.add_done_callback(lambda _task: follower.woken.set())
            try:
                await self._stream(follower, gone, send)
            except (OSError, TimeoutError):
                return  # the client has gone, or reads no more
            finally:
                gone.cancel()
                await asyncio.wait([gone])

    async def _stream(self, follower: Follower, gone: asyncio.Task[None], send: Send) -> None:
        await _send(send, b"retry: 1000\n\n")
        sent_at = time.monotonic()
        while not gone.done():
            if reason := self._over():
                await _send(send, _frame("end", {"reason": reason}), more=False)
                return
            chunk = await self._next(follower)
            if not chunk and time.monotonic() - sent_at >= HEARTBEAT_SECONDS:
                chunk = b": heartbeat\n\n"
            if chunk:
                await _send(send, chunk)
                sent_at = time.monotonic()

    async def _next(self, follower: Follower) -> bytes:
        try:
            return b"".join(entry.frame for entry in await follower.take(CHECK_SECONDS))
        except FeedLagged as lag:
            return b"id: %s\n" % str(lag.cursor).encode() + _frame("resync", {"after": str(lag.cursor)})
        except FeedClosed:
            return b""

    def _over(self) -> str | None:
        """Why the stream must end now."""
        if self._feed.closed:
            return "stopping"
        if self._expires_at is not None and datetime.now(UTC) >= self._expires_at:
            return "expired"
        return "closed" if self._closed is not None and self._closed() else None


async def _send(send: Send, body: bytes, *, more: bool = True) -> None:
    async with asyncio.timeout(SEND_SECONDS):
        await send({"type": "http.response.body", "body": body, "more_body": more})


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _frame(event: str, data: dict[str, Any]) -> bytes:
    return f"event: {event}\ndata: {json.dumps(data)}\n\n".encode()
