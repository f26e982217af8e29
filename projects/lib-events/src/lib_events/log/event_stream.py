"""The feed over HTTP: server-sent events that resume, stay alive, and end with what authorised them."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lib_events.event import Event
from lib_events.event_log import Cursor
from lib_events.log.feed import Feed, FeedClosed, FeedLagged, Filter, Follower

HEARTBEAT_SECONDS = 15.0
CHECK_SECONDS = 1.0  # how late an expiry or a revocation ends a stream
SEND_SECONDS = 30.0  # a client that reads nothing for so long is gone
UNLOGGED_LIMIT = 100  # of a client that reads slowly; they tell of a moment and may be dropped
RETRY = b"retry: 2000\n\n"  # milliseconds until a browser comes back
HEARTBEAT = b": heartbeat\n\n"
LAGGED = "evs.feed.lagged"
HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # a proxy that gathers events would hold them back
}

type Authorised = Callable[[], Awaitable[bool]]
type Unsubscribe = Callable[[], None]
type Unlogged = Callable[[Callable[[Event], None]], Unsubscribe]


class EventStream(Response):
    """One open stream: an ASGI application of its own, because only it knows when to stop.

    It ends within a second once `authorised()` is false, when the service stops, and, with an event
    `evs.feed.lagged`, when the client is too slow: it reads the present state anew and comes back with
    `Last-Event-ID`, which names the place to go on from. `unlogged` tells of events that are in no log.
    """

    def __init__(
        self, feed: Feed, cursor: Cursor, wanted: Filter, *, authorised: Authorised, unlogged: Unlogged | None = None
    ) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._follower = feed.follower(cursor, wanted)
        self._authorised = authorised
        self._unlogged = unlogged
        self._heard: deque[bytes] = deque(maxlen=UNLOGGED_LIMIT)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's
        """Stream until the client goes, the authorisation ends or the service stops."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        unsubscribe = self._unlogged(self._hear) if self._unlogged is not None else None
        gone = asyncio.create_task(_wait_for_disconnect(receive))
        gone.add_done_callback(lambda _task: self._follower.woken.set())
        try:
            with self._follower:
                await self._stream(gone, send)
        except (OSError, TimeoutError):
            pass  # the client has gone, or reads no more
        finally:
            if unsubscribe is not None:
                unsubscribe()
            gone.cancel()
            await asyncio.wait([gone])

    def _hear(self, event: Event) -> None:
        # Without an id: whoever comes back goes on after the last event that is in the log.
        self._heard.append(_frame(event.type, to_json(event.to_dict())))
        self._follower.woken.set()

    async def _stream(self, gone: asyncio.Task[None], send: Send) -> None:
        await _send(send, RETRY)
        spoke_at = checked_at = time.monotonic()
        try:
            while not gone.done():
                chunk = await _next(self._follower) + b"".join(self._heard)
                self._heard.clear()
                now = time.monotonic()
                if now - checked_at >= CHECK_SECONDS:
                    if not await self._authorised():
                        break
                    checked_at = now
                if not chunk and now - spoke_at >= HEARTBEAT_SECONDS:
                    chunk = HEARTBEAT
                if chunk:
                    await _send(send, chunk)
                    spoke_at = now
        except FeedLagged as lagged:
            after = str(lagged.cursor)
            await _send(send, b"id: %s\n" % after.encode() + _frame(LAGGED, to_json({"after": after})))
        except FeedClosed:
            pass  # the service stops
        await _send(send, b"", more=False)


async def _next(follower: Follower) -> bytes:
    return b"".join(selection.frames for selection in await follower.take(CHECK_SECONDS))


async def _send(send: Send, body: bytes, *, more: bool = True) -> None:
    async with asyncio.timeout(SEND_SECONDS):
        await send({"type": "http.response.body", "body": body, "more_body": more})


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _frame(kind: str, data: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), data)
