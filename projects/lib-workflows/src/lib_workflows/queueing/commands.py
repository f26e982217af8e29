"""What is done to queues from outside: each command is one transaction function, its events inside."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select, update

from lib_events.clock import to_datetime
from lib_events.database import Connection, insert_into
from lib_events.event import Event, EventType
from lib_workflows.authoring.queue import QueueLimits, known_queue_name
from lib_workflows.errors import QueueDeclared
from lib_workflows.queueing import key_buckets
from lib_workflows.queueing.events import (
    QUEUE_CHANGED,
    QUEUE_PAUSED,
    QUEUE_RESUMED,
    QueueChanged,
    QueueEvent,
    QueuePaused,
)
from lib_workflows.queueing.slots import rate_of, rate_per_key_of
from lib_workflows.runs.commands import RUNS_TOPIC
from lib_workflows.tables import queues
from lib_workflows.values.texts import check_text

NOTE_CHARACTERS = 1_000


def limit(connection: Connection, name: str, limits: QueueLimits, now: int, *, declared: bool = False) -> None:
    """Give a queue its limits; raises `QueueDeclared` where the code has declared them, `QueueInvalid`."""
    row = _lock(connection, name, now)
    if row.declared and not declared:
        raise QueueDeclared(name)
    if limits_of(row) == limits and row.declared == declared:
        return
    # Another rate begins with a full bucket; the same one goes on.
    full_at = row.full_at if limits.rate == rate_of(row) else 0
    if limits.rate_per_key != rate_per_key_of(row):
        key_buckets.clear(connection, name)
    _put(connection, name, {**_columns_of(limits), "full_at": full_at, "declared": declared}, now)
    _publish(connection, QUEUE_CHANGED, _changed(name, limits), now)


def declare_limits(connection: Connection, declared: Mapping[str, QueueLimits | None], now: int) -> None:
    """Make the limits of queues those of the code; a pause stays.

    None: the code declares none. Where it did, the queue has none then, until somebody gives it some.
    """
    known = set(connection.scalars(select(queues.c.name).where(queues.c.declared)))
    for name, limits in declared.items():
        if limits is not None:
            limit(connection, name, limits, now, declared=True)
        elif name in known and _lock(connection, name, now).declared:
            limit(connection, name, QueueLimits(), now, declared=True)
            _put(connection, name, {"declared": False}, now)


def pause(connection: Connection, name: str, now: int, note: str = "") -> None:
    """Let no run of the queue begin until it is resumed. One that is paused already takes the new note."""
    _lock(connection, name, now)
    _put(connection, name, {"paused": True, "note": check_text(note, "note", NOTE_CHARACTERS)}, now)
    _publish(connection, QUEUE_PAUSED, QueuePaused(queue=name, note=note), now)


def resume(connection: Connection, name: str, now: int) -> None:
    """Let runs of the queue begin again; resuming one that is not paused changes nothing."""
    if _lock(connection, name, now).paused:
        _put(connection, name, {"paused": False, "note": ""}, now)
        _publish(connection, QUEUE_RESUMED, QueueEvent(queue=name), now)


def limits_of(row: Any) -> QueueLimits:
    """The limits of a row of `queues`."""
    return QueueLimits(
        concurrency=row.concurrency,
        rate=rate_of(row),
        key=row.key,
        per_key=row.per_key,
        # A process of an older release, which knows no such rate, may have taken the key away.
        rate_per_key=rate_per_key_of(row) if row.key is not None else None,
    )


def _columns_of(limits: QueueLimits) -> dict[str, Any]:
    """Limits as a row of `queues` has them."""
    rate, rate_per_key = limits.rate, limits.rate_per_key
    return {
        "concurrency": limits.concurrency,
        "rate": rate and rate.runs,
        "rate_micros": rate and rate.per_micros,
        "key": limits.key,
        "per_key": limits.per_key,
        "rate_per_key": rate_per_key and rate_per_key.runs,
        "rate_per_key_micros": rate_per_key and rate_per_key.per_micros,
    }


def _changed(name: str, limits: QueueLimits) -> QueueChanged:
    rate, rate_per_key = limits.rate, limits.rate_per_key
    return QueueChanged(
        queue=name,
        concurrency=limits.concurrency,
        rate_runs=rate and rate.runs,
        rate_seconds=rate and rate.per.total_seconds(),
        key=limits.key,
        per_key=limits.per_key,
        rate_per_key_runs=rate_per_key and rate_per_key.runs,
        rate_per_key_seconds=rate_per_key and rate_per_key.per.total_seconds(),
    )


def _lock(connection: Connection, name: str, now: int) -> Any:
    """The queue's row, which is made when it is asked for; nobody else changes it while this transaction lasts."""
    new = {"name": known_queue_name(name), "paused": False, "note": "", "full_at": 0, "declared": False}
    connection.execute(insert_into(connection, queues).values(**new, changed_at=now).on_conflict_do_nothing())
    return connection.execute(select(queues).where(queues.c.name == name).with_for_update()).one()


def _put(connection: Connection, name: str, values: dict[str, Any], now: int) -> None:
    connection.execute(update(queues).where(queues.c.name == name).values(**values, changed_at=now))


def _publish[E: QueueEvent](connection: Connection, event_type: EventType[E], event: E, now: int) -> None:
    connection.publish(
        Event.of(event_type, event, source=connection.source, subject=event.queue, time=to_datetime(now))
    )
    connection.notify(RUNS_TOPIC)  # more runs may begin, or fewer
