"""What is done to schedules from outside: each command is one transaction function, its events inside."""

import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from sqlalchemy import Row, delete, select, update

from lib_events.clock import to_datetime
from lib_events.database import Connection, insert_into
from lib_events.event import Event, EventType
from lib_workflows.authoring.messages import Principal
from lib_workflows.authoring.queue import check_queue_name
from lib_workflows.authoring.timing import Timing
from lib_workflows.authoring.workflow import AnyWorkflow
from lib_workflows.errors import QueueInvalid, ScheduleDeclared, ScheduleExists, ScheduleInvalid, ScheduleNotFound
from lib_workflows.scheduling.events import (
    SCHEDULE_CHANGED,
    SCHEDULE_CREATED,
    SCHEDULE_DELETED,
    SCHEDULE_PAUSED,
    SCHEDULE_RESUMED,
    ScheduleEvent,
    SchedulePaused,
)
from lib_workflows.scheduling.schedule import Plan, Schedule, check_schedule_name
from lib_workflows.tables import schedule_runs, schedules
from lib_workflows.values.texts import check_text

logger = logging.getLogger(__name__)

SCHEDULES_TOPIC = "schedules"  # something is due at another time than before
NOTE_CHARACTERS = 1_000


def create(
    connection: Connection,
    name: str,
    plan: Plan,
    now: int,
    *,
    principal: Principal | None = None,
    paused: bool = False,
    note: str = "",
    declared: bool = False,
) -> Schedule:
    """Make a schedule; raises `ScheduleExists`, or `ScheduleInvalid` when none of its times is to come."""
    _check_queue(plan)
    row = {
        "name": check_schedule_name(name),
        **plan.row(),
        "paused": paused,
        "note": _check_note(note),
        "declared": declared,
        **_by(principal),
        "revision": 1,
        "fired": 0,
        "skipped": 0,
        "created_at": now,
        "changed_at": now,
    }
    new = insert_into(connection, schedules).values(**row).on_conflict_do_nothing()
    if connection.execute(new).rowcount == 0:
        raise ScheduleExists(name)
    schedule = _await_next(connection, find(connection, name), now)
    tell(connection, SCHEDULE_CREATED, schedule, now)
    return schedule


def change(connection: Connection, name: str, plan: Plan, now: int, *, principal: Principal | None = None) -> Schedule:
    """Let a schedule start something else, or at other times; its runs are then those of whoever changed it.

    Raises `ScheduleNotFound`, `ScheduleDeclared`, `ScheduleInvalid`.
    """
    schedule = lock(connection, name)
    if schedule.declared:
        raise ScheduleDeclared(name)
    if plan.queue != schedule.plan.queue:
        _check_queue(plan)
    changed = Schedule.of(_put(connection, name, plan.row() | _by(principal), now))
    if plan.timing != schedule.plan.timing or plan.jitter != schedule.plan.jitter:
        changed = _await_next(connection, changed, now)
    tell(connection, SCHEDULE_CHANGED, changed, now)
    return changed


def pause(connection: Connection, name: str, now: int, note: str = "") -> Schedule:
    """Start nothing until it is resumed. One that is paused already takes the new note."""
    return Schedule.of(_pause(connection, _lock(connection, name), now, note))


def _pause(connection: Connection, row: Row[Any], now: int, note: str) -> Row[Any]:
    """Also one whose times this release cannot read: others can, and fire it."""
    waiting_for = {"next_at": None, "fire_at": None, "waiting_at": None}
    paused = _put(connection, row.name, {"paused": True, "note": _check_note(note), **waiting_for}, now)
    event = SchedulePaused(schedule=row.name, workflow=row.workflow, note=note)
    _publish(connection, SCHEDULE_PAUSED, event, now)
    return paused


def pause_all_of(connection: Connection, principal: str, now: int, note: str) -> None:
    """Pause every schedule whose runs start in the name of `principal`."""
    mine = select(schedules.c.name).where(schedules.c.principal == principal, schedules.c.paused.is_(False))
    for name in connection.scalars(mine.order_by(schedules.c.name)).all():
        _pause(connection, _lock(connection, name), now, note)


def resume(connection: Connection, name: str, now: int) -> Schedule:
    """Go on with the next time from now; what came while it was paused is for `backfill`."""
    schedule = lock(connection, name)
    if not schedule.paused:
        return schedule
    going_on = Schedule.of(_put(connection, name, {"paused": False, "note": ""}, now))
    resumed = _await_next(connection, going_on, now)
    tell(connection, SCHEDULE_RESUMED, resumed, now)
    return resumed


def remove(connection: Connection, name: str, now: int) -> None:
    """Forget a schedule; its runs stay. Raises `ScheduleNotFound`, `ScheduleDeclared`."""
    row = _lock(connection, name)
    if row.declared:
        raise ScheduleDeclared(name)
    _remove(connection, row, now)


def declare_schedules(connection: Connection, workflows: Iterable[AnyWorkflow], now: int) -> None:
    """Make the schedules that are declared beside `workflows` those of the code; a pause of one stays."""
    for workflow in workflows:
        known = _find(connection, workflow.name)
        if known is not None and not known.declared:
            if workflow.schedule is not None:
                logger.warning("schedule %s is somebody's own; its workflow's is not made: rename one", known.name)
        elif workflow.schedule is None:
            if known is not None:
                _remove(connection, _lock(connection, workflow.name), now)
        elif known is None:
            plan = Plan(workflow=workflow.name, timing=workflow.schedule)
            with suppress(ScheduleExists):  # another worker that starts now was faster
                create(connection, workflow.name, plan, now, declared=True)
        elif _timing_of(known) != workflow.schedule:
            _declare_anew(connection, _lock(connection, workflow.name), workflow, now)


def _timing_of(row: Row[Any]) -> Timing | None:
    """None: this release cannot read it, which must not keep the engine from beginning."""
    with suppress(Exception):
        return Schedule.of(row).plan.timing
    return None


def _declare_anew(connection: Connection, row: Row[Any], workflow: AnyWorkflow, now: int) -> None:
    assert workflow.schedule is not None  # noqa: S101 - whoever calls has looked
    plan = Plan(workflow=workflow.name, timing=workflow.schedule)
    changed = Schedule.of(_put(connection, row.name, plan.row(), now))
    if not changed.paused:
        changed = _await_next(connection, changed, now)
    tell(connection, SCHEDULE_CHANGED, changed, now)


def find(connection: Connection, name: str) -> Schedule:
    """The schedule of that name; raises `ScheduleNotFound`."""
    found = _find(connection, name)
    if found is None:
        raise ScheduleNotFound(name)
    return Schedule.of(found)


def _find(connection: Connection, name: str) -> Row[Any] | None:
    return connection.execute(select(schedules).where(schedules.c.name == name)).one_or_none()


def lock(connection: Connection, name: str) -> Schedule:
    """The same, and nobody else changes it while this transaction lasts."""
    return Schedule.of(_lock(connection, name))


def _lock(connection: Connection, name: str) -> Row[Any]:
    row = connection.execute(select(schedules).where(schedules.c.name == name).with_for_update()).one_or_none()
    if row is None:
        raise ScheduleNotFound(name)
    return row


def tell(connection: Connection, event_type: EventType[ScheduleEvent], schedule: Schedule, now: int) -> None:
    """Publish that something happened to a schedule, and wake who waits for its times."""
    _publish(connection, event_type, ScheduleEvent(schedule=schedule.name, workflow=schedule.plan.workflow), now)


def _publish[E: ScheduleEvent](connection: Connection, event_type: EventType[E], event: E, now: int) -> None:
    connection.publish(
        Event.of(event_type, event, source=connection.source, subject=event.schedule, time=to_datetime(now))
    )
    connection.notify(SCHEDULES_TOPIC)


def _await_next(connection: Connection, schedule: Schedule, now: int) -> Schedule:
    """Wait for the first time from now on, unless paused; raises `ScheduleInvalid` when there is none.

    What is declared in code outlives its times: it rests, and keeps no release from starting.
    """
    following = schedule.plan.timing.after(now)
    if following is None and not schedule.declared:
        raise ScheduleInvalid("times", f"must have one that is to come, got none after {to_datetime(now)}")
    if following is None:
        logger.warning("schedule %s, which the code declares, rests: none of its times is to come", schedule.name)
    if schedule.paused:
        return schedule
    return Schedule.of(_put(connection, schedule.name, schedule.moved(following), schedule.changed_at))


def _put(connection: Connection, name: str, values: Mapping[str, Any], now: int) -> Row[Any]:
    changes = {**values, "revision": schedules.c.revision + 1, "changed_at": now}
    mine = update(schedules).where(schedules.c.name == name)
    return connection.execute(mine.values(**changes).returning(schedules)).one()


def _remove(connection: Connection, row: Row[Any], now: int) -> None:
    connection.execute(delete(schedule_runs).where(schedule_runs.c.schedule == row.name))
    connection.execute(delete(schedules).where(schedules.c.name == row.name))
    _publish(connection, SCHEDULE_DELETED, ScheduleEvent(schedule=row.name, workflow=row.workflow), now)


def _check_queue(plan: Plan) -> None:
    """Not in the plan itself, which is made of older rows, too."""
    if plan.queue is not None:
        try:
            check_queue_name(plan.queue)
        except QueueInvalid as error:
            raise ScheduleInvalid("queue", error.problem) from error


def _check_note(note: str) -> str:
    return check_text(note, "note", NOTE_CHARACTERS)


def _by(principal: Principal | None) -> dict[str, str | None]:
    return {
        "principal": principal.subject if principal else None,
        "principal_name": principal.username if principal else None,
    }


def record_run(connection: Connection, schedule: str, run_id: str, *, kind: str, due_at: int, now: int) -> None:
    """Remember a run of a schedule."""
    row = {"schedule": schedule, "run": run_id, "kind": kind, "due_at": due_at, "started_at": now}
    connection.execute(insert_into(connection, schedule_runs).values(**row).on_conflict_do_nothing())
