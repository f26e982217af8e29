"""Delivers events to webhooks: each active row is a subscription of its own, added and removed as rows change.

The subscription takes events from the log and remembers what is done; here is only what a webhook's handler does. It
reads the row before every attempt, so that what was paused, changed or taken from its owner a moment ago counts.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy import select

from lib_events.clock import SystemClock
from lib_events.database import Connection, Database
from lib_events.event import Event
from lib_events.event_filter import matches
from lib_events.handling.subscriptions import Subscriptions
from lib_events.lifecycle import Loop
from lib_events.sealed import SealingKey, SecretUnreadable
from lib_events.subscription import GiveUp, NotNow, Subscription, TryLater, current_delivery, subscribe
from lib_events.tables import subscription_cursors, webhooks
from lib_events.webhooks.health import SECOND, Patience, learn, record
from lib_events.webhooks.sender import Outcome, Sender, message_id_of
from lib_events.webhooks.webhook import (
    DURABLE_PREFIX,
    TOPIC,
    WEBHOOK_TESTED,
    Webhook,
    WebhookTest,
    find,
    forget,
    read_row,
)

logger = logging.getLogger(__name__)

POLL_SECONDS = 30.0  # only for what a lost notification would have told
SENDING_AT_ONCE = 4  # to one webhook
WAIT_SECONDS = 1.0  # for a probe to end, or for whoever runs us to hear that the webhook is not active

type MayRead = Callable[[Webhook, Event], bool]


class Webhooks(Loop):
    """Keeps one subscription for each active webhook."""

    def __init__(
        self,
        database: Database,
        subscriptions: Subscriptions,
        *,
        sender: Sender,
        key: SealingKey,
        may_read: MayRead,
        patience: Patience | None = None,
    ) -> None:
        super().__init__(name="webhooks")
        self._database = database
        self._subscriptions = subscriptions
        self._sender = sender
        self._key = key
        self._may_read = may_read
        self._patience = patience or Patience()
        self._versions: dict[str, int] = {}  # of those that run here, by durable name

    async def run(self) -> None:
        """Follow the rows until stopped; what runs then is stopped with the other subscriptions."""
        unsubscribe = self._database.on_notify(TOPIC, self.wake)
        try:
            while True:
                await self._follow_rows()
                await self.pause(POLL_SECONDS)
        finally:
            unsubscribe()

    async def test(self, webhook: Webhook) -> Outcome:
        """Send an event that says it is a test, whatever the webhook's state, and keep the attempt."""
        event = Event.of(
            WEBHOOK_TESTED, WebhookTest(webhook=webhook.id), source=self._database.source, subject=webhook.id
        )
        outcome = await self.send(webhook, event, message_id=message_id_of(f"{webhook.durable}:{event.id}"))
        await self._database.transact(record, webhook.id, event, 1, outcome)
        return outcome

    async def send(self, webhook: Webhook, event: Event, *, message_id: str) -> Outcome:
        """Send one event to a webhook, signed with its secrets."""
        now = SystemClock().micros()
        try:
            secrets = webhook.secrets(self._key, now)
        except SecretUnreadable as error:
            return Outcome(now, 0, error=str(error))
        return await self._sender.send(webhook.url, event, message_id=message_id, secrets=secrets)

    async def _follow_rows(self) -> None:
        wanted, left_over = await self._database.read(_look)
        stale = [durable for durable, version in self._versions.items() if version != _version(wanted.get(durable))]
        for durable in stale:
            del self._versions[durable]
        await asyncio.gather(*(self._subscriptions.remove(durable) for durable in stale))
        for durable, webhook in wanted.items():
            if durable not in self._versions:
                self._subscriptions.add(self._subscription(webhook))
                self._versions[durable] = webhook.version
        for durable in left_over:
            await self._database.transact(forget, durable)

    def _subscription(self, webhook: Webhook) -> Subscription:
        delivery = WebhookDelivery(self, self._database, webhook.id, may_read=self._may_read, patience=self._patience)
        decorate = subscribe(*webhook.types, durable=webhook.durable, concurrency=SENDING_AT_ONCE, start="now")
        return decorate(delivery.deliver)


class WebhookDelivery:
    """The handler of one webhook's events."""

    def __init__(
        self, sending: Webhooks, database: Database, webhook_id: str, *, may_read: MayRead, patience: Patience
    ) -> None:
        self._sending = sending
        self._database = database
        self._id = webhook_id
        self._may_read = may_read
        self._patience = patience
        self._probing = False

    async def deliver(self, event: Event) -> None:
        """Send an event if it concerns the webhook and its owner may read it."""
        webhook = await self._database.read(find, self._id)
        if webhook is None or webhook.state != "active":
            raise NotNow(seconds=WAIT_SECONDS)
        if not matches(event, (), webhook.subject) or not self._may_read(webhook, event):
            return
        with self._turn(webhook):
            await self._attempt(webhook, event)

    @contextmanager
    def _turn(self, webhook: Webhook) -> Iterator[None]:
        """Let everybody pass while all is well, nobody during an interruption, and one after it."""
        if webhook.interrupted_until is None:
            yield
            return
        seconds = (webhook.interrupted_until - SystemClock().micros()) / SECOND
        if seconds > 0 or self._probing:
            raise NotNow(seconds=max(seconds, WAIT_SECONDS))
        self._probing = True
        try:
            yield
        finally:
            self._probing = False

    async def _attempt(self, webhook: Webhook, event: Event) -> None:
        delivery = current_delivery()
        message_id = message_id_of(delivery.idempotency_key)
        outcome = await self._sending.send(webhook, event, message_id=message_id)
        await self._database.transact(self._conclude, event, delivery.attempt, outcome)
        if outcome.error is None:
            return
        seconds = self._patience.retry_in(delivery.attempt, outcome)
        told = (delivery.durable, event.id, delivery.attempt, outcome.error)
        logger.info("%s failed on event %s, attempt %d: %s", *told)
        if seconds is None:
            raise GiveUp(outcome.error)
        raise TryLater(outcome.error, seconds=seconds)

    def _conclude(self, connection: Connection, event: Event, attempt: int, outcome: Outcome) -> None:
        """Transaction function: keep the attempt, and what it says about the webhook."""
        record(connection, self._id, event, attempt, outcome)
        learn(connection, self._id, outcome, self._patience)


def _look(connection: Connection) -> tuple[Mapping[str, Webhook], list[str]]:
    """Every active webhook by its durable name, and the durable names that deleted ones have left."""
    found = [read_row(row) for row in connection.execute(select(webhooks))]
    known = {webhook.durable for webhook in found}
    places = connection.scalars(
        select(subscription_cursors.c.durable).where(
            subscription_cursors.c.durable.startswith(DURABLE_PREFIX, autoescape=True)
        )
    )
    left_over = [durable for durable in places if durable not in known]
    return {webhook.durable: webhook for webhook in found if webhook.state == "active"}, left_over


def _version(webhook: Webhook | None) -> int | None:
    return None if webhook is None else webhook.version
