"""Opens server-sent event streams, which last as long as their reader's token is good."""

import logging
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from lib_auth.access_token import RevocationsUnknown, TokenRejected, TokenVerifier
from lib_auth.credentials import read_credentials
from lib_auth.jwks import KeysUnavailable
from lib_events.event_log import Cursor, CursorRejected
from lib_events.log.event_stream import EventStream, Unlogged
from lib_events.log.feed import Feed, Filter
from lib_events.problem import Problem

logger = logging.getLogger(__name__)


class Streams:
    """Opens streams; `close` ends all of them."""

    def __init__(self, feed: Feed, verifier: TokenVerifier) -> None:
        self._feed = feed
        self._verifier = verifier

    async def cursor(self, request: Request, after: str | None) -> Cursor | None:
        """Where the reader wants to go on: `Last-Event-ID`, else `after`; raises the `Problem` 422 or 410."""
        text = request.headers.get("last-event-id") or after
        return None if text is None else await self.resolve(text)

    async def resolve(self, text: str | None) -> Cursor:
        """Read a cursor (None: the end of the log); raises the `Problem` 422, or 410 for one of an older epoch."""
        try:
            return await self._feed.resolve(text)
        except CursorRejected as rejected:
            is_gone = rejected.reason in {"other_epoch", "pruned"}
            status, kind = (410, "cursor-gone") if is_gone else (422, "invalid-cursor")
            raise Problem(status, kind, "Reading cannot go on from there", rejected.detail) from rejected

    def open(self, request: Request, cursor: Cursor, wanted: Filter, unlogged: Unlogged | None = None) -> Response:
        """Return the stream of events after `cursor`, and of what `unlogged` tells meanwhile."""
        credentials = read_credentials(request)
        authorised = partial(self._is_good, credentials.token if credentials else "")
        return EventStream(self._feed, cursor, wanted, authorised=authorised, unlogged=unlogged)

    def close(self) -> None:
        """End every stream, so that the server can stop."""
        self._feed.close()

    async def _is_good(self, token: str) -> bool:
        """Whether the token still is: a stream ends with it, and also when nobody can say."""
        try:
            await self._verifier.verify(token)
        except (TokenRejected, RevocationsUnknown, KeysUnavailable) as error:
            logger.info("a stream ends with its token: %s", error)
            return False
        return True
