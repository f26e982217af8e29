"""Sends one event to one URL: signed, once, within limits; what comes back is judged by its status alone."""

import asyncio
import hashlib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import httpcore
from standardwebhooks import Webhook as Signer

from lib_events.clock import SystemClock, to_datetime
from lib_events.event import Event
from lib_events.webhook_destination import CheckedNetwork, DestinationRefused, Destinations, Resolve, SystemResolver

TIMEOUT_SECONDS = 10.0  # of everything, from the name's look-up to the answer's end
ANSWER_LIMIT_BYTES = 16 * 1024  # read so that the connection can be used again, and thrown away
KEPT_CONNECTIONS = 20
KEPT_SECONDS = 30.0
LONGEST_WAIT_SECONDS = 6 * 3600.0  # that a receiver may ask for
GONE = 410
ASK_TO_WAIT = frozenset((429, 503))
MEDIA_TYPE = "application/cloudevents+json"

type Headers = Sequence[tuple[bytes | str, bytes | str]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an attempt."""

    sent_at: int  # microseconds
    duration_micros: int
    status: int | None = None  # None: there was no answer
    error: str | None = None  # None: it was delivered
    wait_seconds: float = 0.0  # the receiver wants to be left alone so long

    @property
    def is_gone(self) -> bool:
        """Whether the receiver wants nothing more, ever."""
        return self.status == GONE


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    retry_after: str | None


class Sender:
    """Sends; each connection is checked, none is made by way of a proxy. A context manager."""

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
        for pool in self._pools.values():
            await pool.aclose()
        self._resolver.close()

    async def send(self, url: str, event: Event, *, message_id: str, secrets: Sequence[str]) -> Outcome:
        """Send `event`, signed with each of `secrets`; failing is an outcome too."""
        clock = SystemClock()
        sent_at = clock.micros()
        answer: _Answer | None = None
        try:
            self.destinations.check(url)
            body = event.to_json()
            headers = signed_headers(body, message_id=message_id, at=to_datetime(sent_at), secrets=secrets)
            async with asyncio.timeout(self._timeout_seconds):
                answer = await self._post(url, headers, body)
            error = _judge(answer)
        except DestinationRefused as refused:
            error = str(refused)
        except (TimeoutError, httpcore.TimeoutException):
            error = f"no answer within {self._timeout_seconds:g} s"
        except (httpcore.NetworkError, httpcore.ProtocolError) as failure:
            error = f"the connection failed: {str(failure)[:200] or type(failure).__name__}"
        return Outcome(
            sent_at,
            clock.micros() - sent_at,
            status=answer.status if answer else None,
            error=error,
            wait_seconds=_wait_seconds(answer, to_datetime(clock.micros())) if answer and error else 0.0,
        )

    async def _post(self, url: str, headers: Headers, body: bytes) -> _Answer:
        async with self._pool(urlsplit(url).scheme).stream("POST", url, headers=headers, content=body) as response:
            size = 0
            async for chunk in response.aiter_stream():
                size += len(chunk)
                if size > ANSWER_LIMIT_BYTES:
                    break  # closes the connection
            found = {name.lower(): value for name, value in response.headers}
            return _Answer(response.status, found.get(b"retry-after", b"").decode("latin-1") or None)

    def _pool(self, scheme: str) -> httpcore.AsyncConnectionPool:
        if scheme not in self._pools:
            is_plain = scheme == "http"
            self._pools[scheme] = httpcore.AsyncConnectionPool(
                # Made once: reading the authorities' certificates takes longer than a delivery.
                ssl_context=None if is_plain else self._tls or httpcore.default_ssl_context(),
                max_connections=None,  # each webhook has few at once; together they must not wait for one another
                max_keepalive_connections=KEPT_CONNECTIONS,
                keepalive_expiry=KEPT_SECONDS,
                network_backend=CheckedNetwork(self.destinations, self._resolve, is_plain=is_plain),
            )
        return self._pools[scheme]


def signed_headers(body: bytes, *, message_id: str, at: datetime, secrets: Sequence[str]) -> Headers:
    """The headers of a delivery (Standard Webhooks 1.0): one signature for each secret."""
    text = body.decode()
    return [
        ("content-type", MEDIA_TYPE),
        ("user-agent", "event-based-svcs"),
        ("webhook-id", message_id),
        ("webhook-timestamp", str(int(at.timestamp()))),
        ("webhook-signature", " ".join(Signer(secret).sign(message_id, at, text) for secret in secrets)),
    ]


def message_id_of(idempotency_key: str) -> str:
    """The same for every attempt at an event by a webhook; no dot, for the signed text is separated by them."""
    return "msg_" + hashlib.sha256(idempotency_key.encode()).hexdigest()[:32]


def _judge(answer: _Answer) -> str | None:
    if 200 <= answer.status < 300:
        return None
    if 300 <= answer.status < 400:
        return f"the receiver answered {answer.status}; redirects are not followed, give the webhook the new url"
    return f"the receiver answered {answer.status}"


def _wait_seconds(answer: _Answer, now: datetime) -> float:
    """RFC 9110 section 10.2.3: a number of seconds, or a date."""
    if answer.status not in ASK_TO_WAIT or answer.retry_after is None:
        return 0.0
    if answer.retry_after.isascii() and answer.retry_after.isdigit():
        return min(float(answer.retry_after[:9]), LONGEST_WAIT_SECONDS)
    try:
        moment = parsedate_to_datetime(answer.retry_after)
    except ValueError:
        return 0.0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max((moment - now).total_seconds(), 0.0), LONGEST_WAIT_SECONDS)
