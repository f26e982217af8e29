"""HTTP to providers that may lie or hang: checked addresses, bounded time, bounded answers, no redirects."""

import asyncio
import ssl
from collections.abc import Sequence
from ipaddress import ip_network
from urllib.parse import urlsplit

import httpcore
import httpx

from auth_svc.clients import is_loopback
from lib_events.webhook_destination import CheckedNetwork, DestinationRefused, Destinations, SystemResolver

TIMEOUT_SECONDS = 5.0  # of one request, from the name's look-up to the answer's end
ANSWER_LIMIT_BYTES = 256 * 1024
UNREACHABLE = (
    DestinationRefused,
    TimeoutError,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
)
LOOPBACK = ("127.0.0.0/8", "::1/128")


class CheckedTransport(httpx.AsyncBaseTransport):
    """Connects to public addresses over TLS, and to the networks that the operator names."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._destinations = Destinations(tuple(ip_network(network) for network in networks))
        self._resolver = SystemResolver()
        self._pools: dict[str, httpcore.AsyncConnectionPool] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; raises `httpx.TransportError`."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                return await self._send(request)
        except UNREACHABLE as error:
            raise httpx.ConnectError(f"{request.url.host} cannot be reached", request=request) from error

    async def aclose(self) -> None:
        """Close every connection."""
        for pool in self._pools.values():
            await pool.aclose()
        self._resolver.close()

    async def _send(self, request: httpx.Request) -> httpx.Response:
        self._destinations.check(str(request.url))
        if request.url.scheme != "https" and not is_loopback(request.url.host):
            raise DestinationRefused("beyond loopback it must be https")
        headers = [(name, value) for name, value in request.headers.raw if name.lower() != b"accept-encoding"]
        headers.append((b"Accept-Encoding", b"identity"))  # a small answer must not unpack to a large one
        content = await request.aread()
        async with self._pool(request.url.scheme).stream(
            request.method, str(request.url), headers=headers, content=content
        ) as answer:
            body = bytearray()
            async for chunk in answer.aiter_stream():
                body += chunk
                if len(body) > ANSWER_LIMIT_BYTES:
                    raise httpx.ReadError("the answer is too long", request=request)
            plain = [(name, value) for name, value in answer.headers if name.lower() != b"content-encoding"]
            return httpx.Response(answer.status, headers=plain, content=bytes(body), request=request)

    def _pool(self, scheme: str) -> httpcore.AsyncConnectionPool:
        if scheme not in self._pools:
            is_plain = scheme == "http"
            network = CheckedNetwork(self._destinations, self._resolver, is_plain=is_plain)
            trust = None if is_plain else ssl.create_default_context()
            self._pools[scheme] = httpcore.AsyncConnectionPool(
                ssl_context=trust, network_backend=network, max_keepalive_connections=0
            )
        return self._pools[scheme]


def permitted_networks(issuer: str, named: Sequence[str]) -> tuple[str, ...]:
    """The networks that are fine without TLS and a public address: those named, and loopback for who is on it."""
    return (*named, *(LOOPBACK if is_loopback(urlsplit(issuer).hostname) else ()))
