"""Webhooks in: requests of strangers that prove by a signature whose they are, and become events of a type of ours."""

import hashlib
import hmac
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic_core import from_json
from sqlalchemy import select
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from app_svc.event_intake import EVENT_LIMIT_BYTES, EventIntake, refusal
from app_svc.json_pointer import find_pointer
from app_svc.tables import incoming_webhooks
from lib_events.clock import SystemClock, to_datetime
from lib_events.database import Connection, Database
from lib_events.event import Event, EventRejected
from lib_events.problem import Problem
from lib_events.sealed import SealingKey
from lib_events.webhooks.webhook import new_secret

SOURCE_PREFIX = "/webhooks/"
SECRET_LENGTH = 16  # at least
REQUESTS_PER_SECOND = 50.0  # of one webhook, once its signature is good
BURST = 200.0

type Scheme = Literal["standard-webhooks", "hub-signature-256"]
type Headers = Mapping[str, str]


def is_signed_standard(secret: str, headers: Headers, body: bytes) -> bool:
    """Standard Webhooks 1.0: the signature covers id, time and body; the time must be within five minutes."""
    try:
        Verifier(secret).verify(body, dict(headers), json_parse=False)
    except (WebhookVerificationError, ValueError):  # the library lets errors of malformed base64 and UTF-8 through
        return False
    return True


def is_signed_hub(secret: str, headers: Headers, body: bytes) -> bool:
    """`X-Hub-Signature-256`, as GitHub and others send it: the signature covers the body alone."""
    expected = "sha256=" + hmac.digest(secret.encode(), body, "sha256").hex()
    return hmac.compare_digest(expected.encode(), headers.get("x-hub-signature-256", "").encode())


def standard_id(headers: Headers, _body: bytes) -> str:
    """The sender's id of the delivery, the same over its attempts."""
    return headers["webhook-id"]


def body_id(_headers: Headers, body: bytes) -> str:
    """An id made of the body: no header is signed, so whoever has seen a request could send it again with another."""
    return "sha256-" + hashlib.sha256(body).hexdigest()


@dataclass(frozen=True, slots=True)
class _Scheme:
    is_signed: Callable[[str, Headers, bytes], bool]
    delivery_id: Callable[[Headers, bytes], str]


SCHEMES: dict[Scheme, _Scheme] = {
    "standard-webhooks": _Scheme(is_signed_standard, standard_id),
    "hub-signature-256": _Scheme(is_signed_hub, body_id),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class IncomingWebhook:
    """A row of `incoming_webhooks`."""

    name: str
    scheme: Scheme
    event_type: str
    id_pointer: str | None
    subject_pointer: str | None
    owner: str
    created_at: int
    changed_at: int
    secret: bytes = field(repr=False)

    @property
    def source(self) -> str:
        """The source of its events."""
        return SOURCE_PREFIX + self.name

    @property
    def purpose(self) -> str:
        """What its secret is sealed for."""
        return f"incoming-webhook:{self.name}"


def find(connection: Connection, name: str) -> IncomingWebhook | None:
    """The incoming webhook of that name."""
    row = connection.execute(select(incoming_webhooks).where(incoming_webhooks.c.name == name)).first()
    return None if row is None else IncomingWebhook(**row._mapping)


class IncomingWebhooks:
    """Receives: checks the signature, makes the event, and stores it before anybody is thanked."""

    def __init__(self, database: Database, intake: EventIntake, key: SealingKey) -> None:
        self._database = database
        self._intake = intake
        self._key = key
        self._nobodys_secret = new_secret()
        self._rates: defaultdict[str, Rate] = defaultdict(Rate)

    async def receive(self, name: str, headers: Headers, body: bytes) -> Event:
        """Return the event, stored once however often its delivery comes; raises the `Problem` that says no."""
        if len(body) > EVENT_LIMIT_BYTES:
            detail = f"body must be at most {EVENT_LIMIT_BYTES} bytes; send less at once"
            raise Problem(413, "body-too-large", "The body is too large", detail)
        webhook = await self._database.read(find, name)
        if webhook is None:  # the same work and the same answer: nobody finds out which names there are
            is_signed_standard(self._nobodys_secret, headers, body)
            raise refused()
        secret = self._key.unseal(webhook.secret, purpose=webhook.purpose)
        if not SCHEMES[webhook.scheme].is_signed(secret, headers, body):
            raise refused()
        self._rates[name].take()
        try:
            event = event_of(webhook, headers, body)
        except EventRejected as rejected:
            raise refusal(rejected) from rejected
        return await self._intake.take_in(event, webhook.owner)


def event_of(webhook: IncomingWebhook, headers: Headers, body: bytes) -> Event:
    """Make the event of a delivery; raises `EventRejected`."""
    try:
        data = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise EventRejected("malformed", f"the body must be JSON: {error}") from error
    pointer = webhook.id_pointer
    delivery_id = _text_at(data, pointer) if pointer else SCHEMES[webhook.scheme].delivery_id(headers, body)
    if delivery_id is None:
        raise EventRejected("malformed", f"the body must have a text or a number at {pointer}")
    return Event(
        id=delivery_id,
        source=webhook.source,
        type=webhook.event_type,
        time=to_datetime(SystemClock().micros()),
        subject=None if webhook.subject_pointer is None else _text_at(data, webhook.subject_pointer),
        data=data,
    )


class Rate:
    """A bucket that fills steadily; each request takes one out."""

    def __init__(self) -> None:
        self._left = BURST
        self._looked_at = time.monotonic()

    def take(self) -> None:
        """Raise the `Problem` 429 when there is nothing left."""
        now = time.monotonic()
        self._left = min(BURST, self._left + (now - self._looked_at) * REQUESTS_PER_SECOND)
        self._looked_at = now
        if self._left < 1:
            detail = f"send at most {REQUESTS_PER_SECOND:g} a second; try again in a moment"
            raise Problem(429, "too-many-requests", detail=detail, headers={"retry-after": "1"})
        self._left -= 1


def refused() -> Problem:
    """An unknown name and a wrong signature look the same."""
    return Problem(
        401,
        "webhook-refused",
        "The webhook is not accepted",
        "the request must be signed with the secret of a webhook of that name, and not be old",
    )


def _text_at(data: Any, pointer: str) -> str | None:
    found = find_pointer(data, pointer)
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    return found if isinstance(found, str) and found else None
