"""HTTP/1.1 whose requests end: uvicorn's protocol, with bounds for what stands around a body and how long it takes.

A head is read before any application is asked, so nobody else can say how large it may be; the parser would gather a
header of gigabytes, and wait for its end for ever. What a body may be is for `lib_events.http.limits`.
"""

import asyncio
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lib_events.http.limits import WHOLE_BODY

AROUND_LIMIT_BYTES = 64 * 1024  # head, trailers and what frames the chunks of a body
HEAD_SECONDS = 20.0  # from the first byte, or the connection, to the end of the head
FRAME_BYTES = 8  # that a byte of a body may have around it: who sends it in chunks of one has five


class BoundedHttp(HttpToolsProtocol):
    """One connection; too large a head is answered with 431, too slow a one with 408."""

    _around = 0  # bytes that came since the request began and are not its body
    _body_bytes = 0  # that have come of it
    _is_complete = True  # nothing of a request that began is missing
    _is_head = False  # and what is missing is of its head
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Wait for a first request, but not for ever."""
        super().connection_made(transport)
        self._late = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._wait_no_longer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; requests that come in one piece, as nearly all do, cost no timer."""
        self._around += len(data)
        super().data_received(data)
        if self._around > AROUND_LIMIT_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif self._late is None and self._is_waited_for():
            self._late = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def on_message_begin(self) -> None:
        """A request begins."""
        self._around, self._body_bytes, self._is_complete, self._is_head = 0, 0, False, True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its head is there."""
        self._is_head = False
        self._wait_no_longer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Some of its body is there."""
        self._body_bytes += len(body)
        self._around = max(0, self._around - (1 + FRAME_BYTES) * len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """All of it is there: what has come in one piece, as nearly all do, nobody need count or time."""
        self._is_complete = True
        self._wait_no_longer()
        super().on_message_complete()
        self.scope["extensions"] = {WHOLE_BODY: {"bytes": self._body_bytes}}

    def _is_waited_for(self) -> bool:
        """Whether a client owes us something that no application waits for: a head, or a body already answered."""
        return self._is_head or not (self._is_complete or self._is_answering())

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _give_up(self) -> None:
        self._late = None
        if self._is_answering():
            return  # what comes early is waited for when that is done
        if self._is_head:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        else:
            self.transport.close()

    def _refuse(self, status: HTTPStatus) -> None:
        """Say why, where nothing else is being said, and hang up."""
        if self.transport.is_closing():
            return
        if not self._is_answering():
            head = f"HTTP/1.1 {status.value} {status.phrase}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            self.transport.write(head.encode())
        self.transport.close()

    def _wait_no_longer(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
