"""What an attempt means for a webhook and its event: when to try again, when to leave the receiver alone, when to stop.

After some failures in a row a webhook is *interrupted*: nothing is sent for a while, then one event as a probe. The
longer it fails, the longer the while; one success ends it. Events wait in the log meanwhile, so an outage costs few of
them an attempt.
"""

import random
from dataclasses import dataclass

from sqlalchemy import delete, insert, select, update

from lib_events.clock import SystemClock
from lib_events.database import Connection
from lib_events.event import Event
from lib_events.tables import webhook_deliveries, webhooks
from lib_events.webhooks.sender import Outcome
from lib_events.webhooks.webhook import (
    TOPIC,
    WEBHOOK_DISABLED,
    WEBHOOK_INTERRUPTED,
    WEBHOOK_RECOVERED,
    find,
    read_row,
    tell,
)

DELIVERIES_KEPT = 100  # of each webhook
SECOND = 1_000_000  # microseconds
MINUTE = 60.0
HOUR = 60 * MINUTE
GONE_REASON = "the receiver answered 410 Gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to try."""

    # Before the second attempt at an event, the third, …; after the last of them it is a dead letter.
    retry_seconds: tuple[float, ...] = (5, 30, 2 * MINUTE, 10 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR, 8 * HOUR)
    failures_in_a_row: int = 5  # of a webhook, whichever its events are
    first_interruption_seconds: float = 30.0
    last_interruption_seconds: float = HOUR

    def retry_in(self, attempt: int, outcome: Outcome) -> float | None:
        """In how many seconds to try an event again after the failed attempt of that number; None: never."""
        if outcome.is_gone or attempt > len(self.retry_seconds):
            return None
        spread = random.uniform(0.8, 1.2)  # noqa: S311 - it spreads load, it keeps no secret
        return max(self.retry_seconds[attempt - 1] * spread, outcome.wait_seconds)

    def interrupt_for(self, failures: int, outcome: Outcome) -> float:
        """For how many seconds to leave a receiver alone after so many failures in a row."""
        surplus = failures - self.failures_in_a_row
        if surplus < 0:
            return outcome.wait_seconds
        seconds = min(self.first_interruption_seconds * 2.0 ** min(surplus, 30), self.last_interruption_seconds)
        return max(seconds, outcome.wait_seconds)


def record(connection: Connection, webhook_id: str, event: Event, attempt: int, outcome: Outcome) -> None:
    """Transaction function: keep an attempt among the last ones."""
    row = {
        "webhook": webhook_id,
        "event_id": event.id,
        "event_type": event.type,
        "attempt": attempt,
        "sent_at": outcome.sent_at,
        "duration_micros": outcome.duration_micros,
        "status": outcome.status,
        "error": outcome.error,
    }
    connection.execute(insert(webhook_deliveries).values(row))
    mine = webhook_deliveries.c.webhook == webhook_id
    newest_first = select(webhook_deliveries.c.id).where(mine).order_by(webhook_deliveries.c.id.desc())
    surplus: int | None = connection.scalar(newest_first.offset(DELIVERIES_KEPT).limit(1))
    if surplus is not None:
        connection.execute(delete(webhook_deliveries).where(mine, webhook_deliveries.c.id <= surplus))


def learn(connection: Connection, webhook_id: str, outcome: Outcome, patience: Patience) -> None:
    """Transaction function: what an outcome says about the webhook."""
    row = connection.execute(select(webhooks).where(webhooks.c.id == webhook_id).with_for_update()).first()
    if row is None:  # deleted while we sent
        return
    was_interrupted = row.failures >= patience.failures_in_a_row
    if outcome.error is None:
        if row.failures or row.interrupted_until is not None:
            _set(connection, webhook_id, failures=0, interrupted_until=None)
        if was_interrupted:
            tell(connection, WEBHOOK_RECOVERED, read_row(row))
    elif outcome.is_gone:
        _disable(connection, webhook_id)
    elif (row.interrupted_until or 0) <= SystemClock().micros():  # else it was sent before the interruption
        _fail(connection, webhook_id, row.failures + 1, outcome, patience)


def _fail(connection: Connection, webhook_id: str, failures: int, outcome: Outcome, patience: Patience) -> None:
    seconds = patience.interrupt_for(failures, outcome)
    until = SystemClock().micros() + round(seconds * SECOND) if seconds else None
    _set(connection, webhook_id, failures=failures, interrupted_until=until)
    webhook = find(connection, webhook_id)
    if failures == patience.failures_in_a_row and webhook is not None:
        tell(connection, WEBHOOK_INTERRUPTED, webhook)


def _disable(connection: Connection, webhook_id: str) -> None:
    _set(connection, webhook_id, state="disabled", reason=GONE_REASON, version=webhooks.c.version + 1)
    connection.notify(TOPIC)
    webhook = find(connection, webhook_id)
    if webhook is not None:
        tell(connection, WEBHOOK_DISABLED, webhook)


def _set(connection: Connection, webhook_id: str, **values: object) -> None:
    connection.execute(update(webhooks).where(webhooks.c.id == webhook_id).values(values))
