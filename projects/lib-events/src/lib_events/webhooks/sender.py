"""Sends one event to one URL: signed, once, within limits; what comes back is judged by its status alone."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from standardwebhooks import Webhook as Signer

from lib_events.clock import SystemClock, to_datetime
from lib_events.event import Event
from lib_events.http.checked import Answer, CheckedHttp, Headers, RequestFailed
from lib_events.http.destinations import DestinationRefused

ANSWER_LIMIT_BYTES = 16 * 1024  # read so that the connection can be used again, and thrown away
LONGEST_WAIT_SECONDS = 6 * 3600.0  # that a receiver may ask for
GONE = 410
ASK_TO_WAIT = frozenset((429, 503))
MEDIA_TYPE = "application/cloudevents+json"


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


class Sender(CheckedHttp):
    """Sends events to webhooks. A context manager."""

    async def send(self, url: str, event: Event, *, message_id: str, secrets: Sequence[str]) -> Outcome:
        """Send `event`, signed with each of `secrets`; failing is an outcome too."""
        clock = SystemClock()
        sent_at = clock.micros()
        answer: Answer | None = None
        body = event.to_json()
        headers = signed_headers(body, message_id=message_id, at=to_datetime(sent_at), secrets=secrets)
        try:
            answer = await self.request("POST", url, headers=headers, body=body, limit_bytes=ANSWER_LIMIT_BYTES)
            error = _judge(answer)
        except (DestinationRefused, RequestFailed) as failure:
            error = str(failure)
        return Outcome(
            sent_at,
            clock.micros() - sent_at,
            status=answer.status if answer else None,
            error=error,
            wait_seconds=_wait_seconds(answer, to_datetime(clock.micros())) if answer and error else 0.0,
        )


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


def _judge(answer: Answer) -> str | None:
    if 200 <= answer.status < 300:
        return None
    if 300 <= answer.status < 400:
        return f"the receiver answered {answer.status}; redirects are not followed, give the webhook the new url"
    return f"the receiver answered {answer.status}"


def _wait_seconds(answer: Answer, now: datetime) -> float:
    """RFC 9110 section 10.2.3: a number of seconds, or a date."""
    wanted = answer.headers.get("retry-after")
    if answer.status not in ASK_TO_WAIT or not wanted:
        return 0.0
    if wanted.isascii() and wanted.isdigit():
        return min(float(wanted[:9]), LONGEST_WAIT_SECONDS)
    try:
        moment = parsedate_to_datetime(wanted)
    except ValueError:
        return 0.0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max((moment - now).total_seconds(), 0.0), LONGEST_WAIT_SECONDS)
