"""Requests to URLs that strangers name: to checked addresses, within limits, past no proxy and along no redirect."""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import httpcore

from lib_events.http.destinations import CheckedNetwork, Destinations, Resolve, SystemResolver

TIMEOUT_SECONDS = 10.0  # of everything, from the name's look-up to the answer's end
KEPT_CONNECTIONS = 20
KEPT_SECONDS = 30.0

type Headers = Sequence[tuple[bytes | str, bytes | str]]


class RequestFailed(Exception):
    """There was no answer; the text says why, and nothing about our network."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes = field(repr=False)
    is_whole: bool = True  # False: the body was longer than wanted, and is cut


class CheckedHttp:
    """Sends requests; each connection's address is checked when it is made. A context manager."""

    def __init__(
        self,
        destinations: Destinations,
        *,
        resolve: Resolve | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.destinations = destinations
        self._timeout_seconds = timeout_seconds
        self._resolver = SystemResolver()
        self._resolve = resolve or self._resolver
        self._tls = tls
        self._pools: dict[str, httpcore.AsyncConnectionPool] = {}  # by scheme; made when first needed

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections and the resolver's threads."""
        for pool in self._pools.values():
            await pool.aclose()
        self._resolver.close()

    async def request(
        self, method: str, url: str, *, headers: Headers = (), body: bytes = b"", limit_bytes: int
    ) -> Answer:
        """Send one request and return its answer; raises `DestinationRefused` and `RequestFailed`."""
        self.destinations.check(url)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._send(method, url, headers, body, limit_bytes)
        except (TimeoutError, httpcore.TimeoutException) as error:
            raise RequestFailed(f"no answer within {self._timeout_seconds:g} s") from error
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise RequestFailed(f"the connection failed: {str(error)[:200] or type(error).__name__}") from error

    async def _send(self, method: str, url: str, headers: Headers, body: bytes, limit_bytes: int) -> Answer:
        read = bytearray()
        async with self._pool(urlsplit(url).scheme).stream(method, url, headers=headers, content=body) as response:
            async for chunk in response.aiter_stream():
                read += chunk
                if len(read) > limit_bytes:
                    break  # closes the connection
            found = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            return Answer(response.status, found, bytes(read[:limit_bytes]), is_whole=len(read) <= limit_bytes)

    def _pool(self, scheme: str) -> httpcore.AsyncConnectionPool:
        if scheme not in self._pools:
            is_plain = scheme == "http"
            self._pools[scheme] = httpcore.AsyncConnectionPool(
                # Made once: reading the authorities' certificates takes longer than a request.
                ssl_context=None if is_plain else self._tls or httpcore.default_ssl_context(),
                max_connections=None,  # each receiver has few at once; together they must not wait for one another
                max_keepalive_connections=KEPT_CONNECTIONS,
                keepalive_expiry=KEPT_SECONDS,
                network_backend=CheckedNetwork(self.destinations, self._resolve, is_plain=is_plain),
            )
        return self._pools[scheme]
