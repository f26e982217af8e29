"""What a webhook is: a row that says which events go to which URL, for whom; and the commands that change it."""

import base64
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from pydantic import BaseModel
from pydantic_core import from_json, to_json
from sqlalchemy import Row, delete, func, insert, select, update

from lib_events.clock import MICROSECOND, SystemClock
from lib_events.database import Connection
from lib_events.event import Cause, Event, EventType
from lib_events.handling.place import Place
from lib_events.sealed import SealingKey
from lib_events.tables import dead_letters, handled_events, subscription_cursors, webhook_deliveries, webhooks

TOPIC = "webhooks"
DURABLE_PREFIX = "webhook:"
SECRET_PREFIX = "whsec_"  # noqa: S105 - how Standard Webhooks writes a secret
SECRET_BYTES = 32
OVERLAP = timedelta(hours=24)  # after a rotation both secrets sign
OWNER_LIMIT = 50  # each of them reads the log

type State = Literal["active", "paused", "disabled"]


class WebhookTold(BaseModel):
    """Which webhook, whose, and how it is now. Its URL is nobody else's business: it may hold a secret."""

    webhook: str
    owner: str
    state: State
    reason: str | None = None


class WebhookTest(BaseModel):
    """Says that nothing happened: somebody tries a webhook out."""

    webhook: str


WEBHOOK_CREATED = EventType("evs.webhook.created", WebhookTold)
WEBHOOK_CHANGED = EventType("evs.webhook.changed", WebhookTold)
WEBHOOK_DELETED = EventType("evs.webhook.deleted", WebhookTold)
WEBHOOK_DISABLED = EventType("evs.webhook.disabled", WebhookTold)
WEBHOOK_INTERRUPTED = EventType("evs.webhook.interrupted", WebhookTold)
WEBHOOK_RECOVERED = EventType("evs.webhook.recovered", WebhookTold)
WEBHOOK_TESTED = EventType("evs.webhook.tested", WebhookTest)  # sent, and not in the log
EVENT_TYPES = (
    WEBHOOK_CREATED,
    WEBHOOK_CHANGED,
    WEBHOOK_DELETED,
    WEBHOOK_DISABLED,
    WEBHOOK_INTERRUPTED,
    WEBHOOK_RECOVERED,
    WEBHOOK_TESTED,
)


class TooManyWebhooks(Exception):
    """An owner has as many as they may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A row of `webhooks`."""

    id: str
    url: str
    types: tuple[str, ...]
    subject: str | None
    owner: str
    owner_roles: tuple[str, ...]
    state: State
    reason: str | None
    failures: int
    interrupted_until: int | None
    version: int
    created_at: int
    changed_at: int
    previous_until: int | None
    secret: bytes = field(repr=False)
    previous_secret: bytes | None = field(repr=False)

    @property
    def durable(self) -> str:
        """The name of its subscription."""
        return DURABLE_PREFIX + self.id

    def secrets(self, key: SealingKey, now: int) -> list[str]:
        """The secrets that sign now; raises `SecretUnreadable`."""
        found = [self.secret]
        if self.previous_secret is not None and now < (self.previous_until or 0):
            found.append(self.previous_secret)
        return [key.unseal(sealed, purpose=self.durable) for sealed in found]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWebhook:
    """What a webhook begins with; `secret` is sealed."""

    id: str
    url: str
    types: tuple[str, ...]
    subject: str | None
    owner: str
    owner_roles: tuple[str, ...]
    secret: bytes = field(repr=False)


def new_id() -> str:
    """An id for a webhook."""
    return "wh_" + secrets.token_hex(12)


def new_secret() -> str:
    """A secret that signs."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def create(connection: Connection, new: NewWebhook) -> Webhook:
    """Transaction function: from now on what fits is delivered; raises `TooManyWebhooks`."""
    mine = select(func.count()).select_from(webhooks).where(webhooks.c.owner == new.owner)
    if connection.scalar(mine) >= OWNER_LIMIT:
        raise TooManyWebhooks(f"an owner must have at most {OWNER_LIMIT} webhooks; delete one, or widen its types")
    now = SystemClock().micros()
    row = {
        "id": new.id,
        "url": new.url,
        "types": _encode(new.types),
        "subject": new.subject,
        "owner": new.owner,
        "owner_roles": _encode(new.owner_roles),
        "state": "active",
        "secret": new.secret,
        "failures": 0,
        "version": 1,
        "created_at": now,
        "changed_at": now,
    }
    connection.execute(insert(webhooks).values(row))
    # Its place is made here: what is committed after this is delivered, however late its deliveries begin.
    Place(DURABLE_PREFIX + new.id, "now").begin(connection)
    return _changed(connection, new.id, WEBHOOK_CREATED)


def find(connection: Connection, webhook_id: str) -> Webhook | None:
    """The webhook of that id."""
    row = connection.execute(select(webhooks).where(webhooks.c.id == webhook_id)).first()
    return None if row is None else read_row(row)


def change(connection: Connection, webhook_id: str, values: Mapping[str, Any]) -> Webhook | None:
    """Transaction function: change `url`, `types` or `subject`; what was interrupted is tried again at once."""
    encoded = {name: _encode(value) if name == "types" else value for name, value in values.items()}
    return _update(connection, webhook_id, encoded | {"failures": 0, "interrupted_until": None})


def rotate(connection: Connection, webhook_id: str, secret: bytes, overlap: timedelta = OVERLAP) -> Webhook | None:
    """Transaction function: sign with another secret, and for as long as `overlap` with the last one too."""
    values = {
        "previous_secret": webhooks.c.secret,
        "previous_until": SystemClock().micros() + overlap // MICROSECOND,
        "secret": secret,
    }
    return _update(connection, webhook_id, values)


def pause(connection: Connection, webhook_id: str, reason: str | None = None) -> Webhook | None:
    """Transaction function: deliver nothing until it is resumed; the events wait in the log."""
    return _update(connection, webhook_id, {"state": "paused", "reason": reason})


def resume(connection: Connection, webhook_id: str) -> Webhook | None:
    """Transaction function: deliver again, beginning where it stood, and forget its failures."""
    values = {"state": "active", "reason": None, "failures": 0, "interrupted_until": None}
    return _update(connection, webhook_id, values)


def remove(connection: Connection, webhook_id: str) -> Webhook | None:
    """Transaction function: deliver nothing more, and forget it; `forget` takes the rest once it has stopped."""
    webhook = find(connection, webhook_id)
    if webhook is None:
        return None
    connection.execute(delete(webhooks).where(webhooks.c.id == webhook_id))
    connection.notify(TOPIC)
    tell(connection, WEBHOOK_DELETED, webhook)
    return webhook


def forget(connection: Connection, durable: str) -> None:
    """Transaction function: drop what a deleted webhook has left."""
    for table in (subscription_cursors, handled_events, dead_letters):
        connection.execute(delete(table).where(table.c.durable == durable))
    webhook_id = durable.removeprefix(DURABLE_PREFIX)
    connection.execute(delete(webhook_deliveries).where(webhook_deliveries.c.webhook == webhook_id))


def set_owner_roles(connection: Connection, owner: str, roles: Sequence[str]) -> None:
    """Transaction function: from the next delivery on an owner's webhooks show what these roles may read."""
    connection.execute(update(webhooks).where(webhooks.c.owner == owner).values(owner_roles=_encode(roles)))


def pause_all_of(connection: Connection, owner: str, reason: str) -> None:
    """Transaction function: pause every active webhook of an owner."""
    active = select(webhooks.c.id).where(webhooks.c.owner == owner, webhooks.c.state == "active")
    for webhook_id in connection.scalars(active).all():
        pause(connection, webhook_id, reason)


def tell(connection: Connection, event_type: EventType[WebhookTold], webhook: Webhook) -> None:
    """Publish what became of a webhook; it concerns its owner, whoever's event led to it."""
    told = WebhookTold(webhook=webhook.id, owner=webhook.owner, state=webhook.state, reason=webhook.reason)
    cause = Cause(principal=webhook.owner)
    connection.publish(Event.of(event_type, told, source=connection.source, subject=webhook.id, cause=cause))


def read_row(row: Row[Any]) -> Webhook:
    """Read a row of `webhooks`."""
    lists = {"types": tuple(from_json(row.types)), "owner_roles": tuple(from_json(row.owner_roles))}
    return Webhook(**{**row._mapping, **lists})


def _update(connection: Connection, webhook_id: str, values: Mapping[str, Any]) -> Webhook | None:
    stamped = {**values, "version": webhooks.c.version + 1, "changed_at": SystemClock().micros()}
    updated = connection.execute(update(webhooks).where(webhooks.c.id == webhook_id).values(stamped))
    return _changed(connection, webhook_id, WEBHOOK_CHANGED) if updated.rowcount else None


def _changed(connection: Connection, webhook_id: str, event_type: EventType[WebhookTold]) -> Webhook:
    webhook = find(connection, webhook_id)
    assert webhook is not None  # noqa: S101 - this transaction wrote it
    connection.notify(TOPIC)
    tell(connection, event_type, webhook)
    return webhook


def _encode(values: Sequence[str]) -> str:
    return to_json(list(values)).decode()
