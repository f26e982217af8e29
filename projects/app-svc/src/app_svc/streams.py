"""Server-sent events: the feed and the live progress of runs, for as long as the reader's token is good."""

import logging
import time
from collections.abc import AsyncIterator, Callable

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from lib_auth.access_token import RevocationsUnknown, TokenRejected, TokenVerifier
from lib_auth.guard import bearer_token
from lib_auth.jwks import KeysUnavailable
from lib_events.event import Event
from lib_events.event_log import Cursor, CursorRejected
from lib_events.feed import Feed, FeedClosed, FeedLagged, Filter, Follower
from lib_events.problem import Problem

logger = logging.getLogger(__name__)

CHECK_SECONDS = 1.0  # how soon a stream notices that its token was revoked
HEARTBEAT_SECONDS = 15.0
HEADERS = {
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # a proxy that gathers events would hold them back
}
OPENING = b"retry: 2000\n\n"
HEARTBEAT = b":\n\n"
QUEUE_LIMIT = 100

type Unsubscribe = Callable[[], None]
type Subscribe = Callable[[Callable[[Event], None]], Unsubscribe]


class Streams:
    """Opens streams; `close` ends all of them."""

    def __init__(self, feed: Feed, verifier: TokenVerifier) -> None:
        self._feed = feed
        self._verifier = verifier

    async def cursor(self, request: Request, after: str | None) -> Cursor | None:
        """Where the reader wants to go on: `Last-Event-ID`, else `after`; raises the `Problem` 422."""
        text = request.headers.get("last-event-id") or after
        return None if text is None else await self.resolve(text)

    async def resolve(self, text: str | None) -> Cursor:
        """Read a cursor (None: the end of the log); raises the `Problem` 422."""
        try:
            return await self._feed.resolve(text)
        except CursorRejected as rejected:
            raise Problem(422, "invalid-cursor", "Reading cannot go on from there", str(rejected)) from rejected

    def open(self, request: Request, cursor: Cursor, wanted: Filter, live: Subscribe | None = None) -> Response:
        """Return the stream of events after `cursor`, and of what `live` tells meanwhile."""
        token = bearer_token(request) or ""
        follower = self._feed.follower(cursor, wanted)
        return StreamingResponse(self._frames(follower, token, live), media_type="text/event-stream", headers=HEADERS)

    def close(self) -> None:
        """End every stream, so that the server can stop."""
        self._feed.close()

    async def _frames(self, follower: Follower, token: str, live: Subscribe | None) -> AsyncIterator[bytes]:
        told: list[bytes] = []

        def hear(event: Event) -> None:
            if len(told) < QUEUE_LIMIT:
                told.append(_live_frame(event))
            follower.woken.set()

        unsubscribe = live(hear) if live is not None else None
        spoke_at = time.monotonic()
        yield OPENING
        try:
            with follower:
                while await self._is_good(token):
                    frames = [entry.frame for entry in await follower.take(CHECK_SECONDS)] + told
                    told.clear()
                    if not frames and time.monotonic() - spoke_at > HEARTBEAT_SECONDS:
                        frames = [HEARTBEAT]
                    if frames:
                        spoke_at = time.monotonic()
                        yield b"".join(frames)
        except FeedLagged as lagged:
            yield b"id: %s\nevent: evs.feed.lagged\ndata: {}\n\n" % str(lagged.cursor).encode()
        except FeedClosed:
            pass
        finally:
            if unsubscribe is not None:
                unsubscribe()

    async def _is_good(self, token: str) -> bool:
        """Whether the token still is: a stream ends with it, and also when nobody can say."""
        try:
            await self._verifier.verify(token)
        except (TokenRejected, RevocationsUnknown, KeysUnavailable) as error:
            logger.info("a stream ends with its token: %s", error)
            return False
        return True


def _live_frame(event: Event) -> bytes:
    """An event that is in no log has no id: reconnecting goes on after the last one that has."""
    return b"event: %s\ndata: %s\n\n" % (event.type.encode(), to_json(event.to_dict()))
