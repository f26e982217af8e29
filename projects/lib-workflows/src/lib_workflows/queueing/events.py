"""The events that tell of queues; their payloads are public interface."""

from typing import Any

from pydantic import BaseModel

from lib_events.event import EventType


class QueueEvent(BaseModel):
    """Something happened to a queue."""

    queue: str


class QueueChanged(QueueEvent):
    """A queue has other limits: runs under way at most, and runs that begin in so many seconds; null: none.

    Its runs take turns by the field `key` of their input; of each at most `per_key` are under way, and so many begin
    in `rate_per_key_seconds`.
    """

    concurrency: int | None
    rate_runs: int | None
    rate_seconds: float | None
    key: str | None
    per_key: int | None
    rate_per_key_runs: int | None = None
    rate_per_key_seconds: float | None = None


class QueuePaused(QueueEvent):
    """No run of a queue begins any more, for the reason in `note`."""

    note: str


QUEUE_CHANGED = EventType("evs.queue.changed", QueueChanged)
QUEUE_PAUSED = EventType("evs.queue.paused", QueuePaused)
QUEUE_RESUMED = EventType("evs.queue.resumed", QueueEvent)

EVENT_TYPES: tuple[EventType[Any], ...] = (QUEUE_CHANGED, QUEUE_PAUSED, QUEUE_RESUMED)
