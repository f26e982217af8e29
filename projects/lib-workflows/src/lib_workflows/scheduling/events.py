"""The events that tell of schedules; their payloads are public interface."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

from lib_events.event import EventType

# A time came; it came while the last run was under way, and waited; it had passed and was asked for; or none, but now.
type Kind = Literal["due", "waited", "backfill", "trigger"]
# A run was under way; another time came while one waited; nobody was there; or the run of that time exists already.
type Reason = Literal["overlap", "replaced", "missed", "exists"]


class ScheduleEvent(BaseModel):
    """Something happened to a schedule."""

    schedule: str
    workflow: str


class SchedulePaused(ScheduleEvent):
    """A schedule starts nothing any more, for the reason in `note`."""

    note: str


class ScheduleFired(ScheduleEvent):
    """A schedule started `run` for the time `due_at`."""

    run: str
    kind: Kind
    due_at: datetime


class ScheduleSkipped(ScheduleEvent):
    """A schedule started nothing for the time `due_at`, nor, with `until`, for any other up to that one."""

    reason: Reason
    due_at: datetime
    until: datetime | None = None


SCHEDULE_CREATED = EventType("evs.schedule.created", ScheduleEvent)
SCHEDULE_CHANGED = EventType("evs.schedule.changed", ScheduleEvent)
SCHEDULE_PAUSED = EventType("evs.schedule.paused", SchedulePaused)
SCHEDULE_RESUMED = EventType("evs.schedule.resumed", ScheduleEvent)
SCHEDULE_DELETED = EventType("evs.schedule.deleted", ScheduleEvent)
SCHEDULE_FIRED = EventType("evs.schedule.fired", ScheduleFired)
SCHEDULE_SKIPPED = EventType("evs.schedule.skipped", ScheduleSkipped)

EVENT_TYPES: tuple[EventType[Any], ...] = (
    SCHEDULE_CREATED,
    SCHEDULE_CHANGED,
    SCHEDULE_PAUSED,
    SCHEDULE_RESUMED,
    SCHEDULE_DELETED,
    SCHEDULE_FIRED,
    SCHEDULE_SKIPPED,
)
