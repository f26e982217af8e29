"""HTTP to providers that may lie or hang, for clients that speak httpx: bounded time, bounded answers, no redirects."""

import asyncio

import httpx

from auth_svc.loopback import is_loopback
from lib_events.http.checked import CheckedHttp, RequestFailed
from lib_events.http.destinations import DestinationRefused

TIMEOUT_SECONDS = 5.0  # of one request, from the name's look-up to the answer's end
ANSWER_LIMIT_BYTES = 256 * 1024


class CheckedTransport(httpx.AsyncBaseTransport):
    """Sends by `CheckedHttp`: to public addresses over TLS, and to the networks that the operator names."""

    def __init__(self, http: CheckedHttp) -> None:
        self._http = http

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; raises `httpx.TransportError`."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                return await self._send(request)
        except (DestinationRefused, RequestFailed, TimeoutError) as error:
            raise httpx.ConnectError(f"{request.url.host} cannot be reached", request=request) from error

    async def _send(self, request: httpx.Request) -> httpx.Response:
        if request.url.scheme != "https" and not is_loopback(request.url.host):
            raise DestinationRefused("beyond loopback it must be https")
        headers = [(name, value) for name, value in request.headers.raw if name.lower() != b"accept-encoding"]
        headers.append((b"Accept-Encoding", b"identity"))  # a small answer must not unpack to a large one
        answer = await self._http.request(
            request.method,
            str(request.url),
            headers=headers,
            body=await request.aread(),
            limit_bytes=ANSWER_LIMIT_BYTES,
        )
        if not answer.is_whole:
            raise httpx.ReadError("the answer is too long", request=request)
        plain = {name: value for name, value in answer.headers.items() if name != "content-encoding"}
        return httpx.Response(answer.status, headers=plain, content=answer.body, request=request)
