"""How a schedule fires: which of its times count is decided purely, then one transaction starts their runs.

Of several workers that see the same time one moves the row, and the others find it moved. A crash before the commit
has done nothing, one after it everything. Time only goes forward in the row: a clock that is set back fires nothing
again.
"""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Literal

from sqlalchemy import and_, delete, select, update

from lib_events.clock import MICROSECOND, to_datetime
from lib_events.database import Connection
from lib_events.event import Cause, Event, EventType
from lib_workflows.authoring.messages import Principal
from lib_workflows.authoring.timing import latest, times_after
from lib_workflows.authoring.workflow import AnyWorkflow
from lib_workflows.errors import CommandRefused, RunConflict, RunNotFound
from lib_workflows.runs import commands
from lib_workflows.runs.commands import StartRequest
from lib_workflows.scheduling.commands import SCHEDULES_TOPIC, lock, record_run
from lib_workflows.scheduling.events import (
    SCHEDULE_FIRED,
    SCHEDULE_SKIPPED,
    Kind,
    Reason,
    ScheduleEvent,
    ScheduleFired,
    ScheduleSkipped,
)
from lib_workflows.scheduling.schedule import Schedule
from lib_workflows.tables import runs, schedule_runs, schedules

AT_ONCE = 50  # times that one transaction catches up with
RUNS_KEPT = 100  # of each schedule, beside those that have not ended

# Runs of a schedule: one that is parked is not under way, for it may stay so for ever.
UNDER_WAY = and_(schedule_runs.c.run == runs.c.id, runs.c.ended_at.is_(None), runs.c.status != "nondeterministic")


@dataclass(frozen=True, slots=True)
class Due:
    """What there is to do for a schedule now."""

    times: tuple[int, ...]  # each of which counts, oldest first
    missed: tuple[int, int] | None  # from one time up to another one: nobody was there
    next_at: int | None


def what_is_due(schedule: Schedule, now: int) -> Due:
    """Which times have come since the last one that something was done for, and which of them count."""
    first = schedule.next_at
    if first is None or schedule.fires_at(first) > now:
        return Due((), None, first)
    counting = _each(schedule, first, now) if schedule.plan.catch_up == "all" else _last(schedule, first, now)
    # What is too old is passed over; what is not may have a jitter that has not passed.
    passed = counting[0] - 1 if counting else max(first, _oldest(schedule, now) - 1)
    missed = latest(schedule.plan.timing, first - 1, passed)
    following = schedule.plan.timing.after(counting[-1] if counting else passed)
    return Due(tuple(counting), None if missed is None else (first, missed), following)


def _last(schedule: Schedule, first: int, now: int) -> list[int]:
    """The last time that has come, if it is not too old."""
    longest = schedule.plan.jitter // MICROSECOND
    last = latest(schedule.plan.timing, first - 1, now - longest) or first
    return [last] if last >= _oldest(schedule, now) else []


def _each(schedule: Schedule, first: int, now: int) -> list[int]:
    """Every time that has come and is not too old; not too many at once, and none past one whose jitter has not."""
    found = times_after(schedule.plan.timing, max(first, _oldest(schedule, now)) - 1, AT_ONCE, now)
    return list(takewhile(lambda due_at: schedule.fires_at(due_at) <= now, found))


def _oldest(schedule: Schedule, now: int) -> int:
    """The oldest time that may still count."""
    return now - (schedule.plan.catch_up_window + schedule.plan.jitter) // MICROSECOND


def fire(connection: Connection, seen: Schedule, due: Due, workflow: AnyWorkflow, now: int) -> bool:
    """Do what is due; returns False when the schedule has been moved meanwhile, and nothing was done."""
    schedule = _lock_as_seen(connection, seen)
    if schedule is None:
        return False
    firing = Firing(connection, schedule, workflow, now)
    firing.start_what_waits()
    if due.missed is not None:
        firing.skip("missed", *due.missed)
    for due_at in due.times:
        firing.take(due_at)
    firing.start_what_waits()  # where what was under way could be cancelled at once
    firing.move(due.next_at)
    return True


def fire_now(
    connection: Connection,
    name: str,
    workflow: AnyWorkflow,
    times: Iterable[int],
    *,
    kind: Literal["trigger", "backfill"],
    run_id: str | None = None,
    principal: Principal | None = None,
    now: int,
) -> list[str]:
    """Start the runs of these times beside whatever is under way; returns the ids of those that are new."""
    firing = Firing(connection, lock(connection, name), workflow, now, principal)
    for due_at in times:
        firing.start(due_at, kind, run_id)
    firing.count()
    return firing.started


def _lock_as_seen(connection: Connection, seen: Schedule) -> Schedule | None:
    # One that was made anew under that name begins to count its revisions anew.
    as_seen = and_(schedules.c.revision == seen.revision, schedules.c.created_at == seen.created_at)
    query = select(schedules).where(schedules.c.name == seen.name, as_seen)
    row = connection.execute(query.with_for_update(skip_locked=True)).one_or_none()  # who holds it is about to move it
    return None if row is None else Schedule.of(row)


@dataclass(slots=True)
class Firing:
    """One schedule, locked, and what is done for it in this transaction."""

    connection: Connection
    schedule: Schedule
    workflow: AnyWorkflow
    now: int
    principal: Principal | None = None  # in whose name, if not in that of whoever made it
    started: list[str] = field(default_factory=list)
    skipped: int = 0
    waiting_at: int | None = field(init=False)

    def __post_init__(self) -> None:
        """What waits, waits on."""
        self.waiting_at = self.schedule.waiting_at

    def take(self, due_at: int) -> None:
        """Do for one time what the schedule wants done while another run of it is under way, or is not."""
        overlap = self.schedule.plan.overlap
        active = [] if overlap == "allow" else self.active()
        if not active:
            self.start(due_at, "due")
        elif overlap == "skip" or (overlap == "buffer_one" and self.waiting_at is not None):
            self.skip("overlap", due_at)
        else:
            if self.waiting_at is not None:
                self.skip("replaced", self.waiting_at)
            self.waiting_at = due_at
            if overlap == "cancel_other":
                self._cancel(active)

    def start_what_waits(self) -> None:
        """Start the run of the time that waits, when nothing is under way."""
        if self.waiting_at is not None and not self.active():
            self.start(self.waiting_at, "waited")
            self.waiting_at = None

    def active(self) -> list[str]:
        """The runs of the schedule that are under way."""
        mine = schedule_runs.c.schedule == self.schedule.name
        return list(self.connection.scalars(select(runs.c.id).where(mine, UNDER_WAY).order_by(runs.c.id)))

    def start(self, due_at: int, kind: Kind, run_id: str | None = None) -> None:
        """Start the run of a time, unless there is one."""
        schedule = self.schedule
        principal = self.principal or schedule.principal
        request = StartRequest.of(
            self.workflow,
            schedule.plan.input,
            queue=schedule.plan.queue,
            id=run_id or schedule.run_id(due_at),
            tags=schedule.tags(due_at),
            principal=principal,
            cause=Cause(principal=principal.subject if principal else None),
            on_conflict="existing",
        )
        try:
            started, is_new = commands.start(self.connection, request, self.now)
        except RunConflict:
            started, is_new = "", False  # the schedule of that name was for another workflow then
        if not is_new:
            if kind in ("due", "waited"):  # who asks for a run by hand knows that it may be there
                self.skip("exists", due_at)
            return
        record_run(self.connection, schedule.name, started, kind=kind, due_at=due_at, now=self.now)
        self.started.append(started)
        fired = ScheduleFired(
            schedule=schedule.name,
            workflow=self.workflow.name,
            run=started,
            kind=kind,
            due_at=to_datetime(due_at),
        )
        self._tell(SCHEDULE_FIRED, fired, Cause(started, principal=request.cause.principal))

    def skip(self, reason: Reason, due_at: int, until: int | None = None) -> None:
        """Say that nothing is started for a time, or for all from one up to another."""
        self.skipped += 1
        skipped = ScheduleSkipped(
            schedule=self.schedule.name,
            workflow=self.schedule.plan.workflow,
            reason=reason,
            due_at=to_datetime(due_at),
            until=None if until is None else to_datetime(until),
        )
        self._tell(SCHEDULE_SKIPPED, skipped, Cause())

    def move(self, next_at: int | None) -> None:
        """Wait for the next time; whoever has seen the row as it was does nothing any more."""
        self._put(**self.schedule.moved(next_at), waiting_at=self.waiting_at)

    def count(self) -> None:
        """Say in the row how much was started, and keep waiting for the same time."""
        self._put()

    def _put(self, **values: int | None) -> None:
        columns = schedules.c
        counts = {"fired": columns.fired + len(self.started), "skipped": columns.skipped + self.skipped}
        mine = columns.name == self.schedule.name
        self.connection.execute(update(schedules).where(mine).values(revision=columns.revision + 1, **counts, **values))
        self._forget_old_runs()
        self.connection.notify(SCHEDULES_TOPIC)  # other workers wait for what has been done

    def _cancel(self, run_ids: Iterable[str]) -> None:
        for run_id in run_ids:
            with contextlib.suppress(CommandRefused, RunNotFound):  # it has just ended
                commands.cancel(self.connection, run_id, f"schedule {self.schedule.name} is due again", self.now)

    def _forget_old_runs(self) -> None:
        mine = schedule_runs.c.schedule == self.schedule.name
        newest_first = (schedule_runs.c.started_at.desc(), schedule_runs.c.run.desc())
        old = select(schedule_runs.c.run).where(mine).order_by(*newest_first).limit(AT_ONCE).offset(RUNS_KEPT)
        known = list(self.connection.scalars(old))
        if known:
            under_way = select(runs.c.id).where(runs.c.id.in_(known), runs.c.ended_at.is_(None))
            gone = schedule_runs.c.run.not_in(under_way)
            self.connection.execute(delete(schedule_runs).where(mine, schedule_runs.c.run.in_(known), gone))

    def _tell[E: ScheduleEvent](self, event_type: EventType[E], event: E, cause: Cause) -> None:
        connection, at = self.connection, to_datetime(self.now)
        connection.publish(
            Event.of(event_type, event, source=connection.source, subject=self.schedule.name, cause=cause, time=at)
        )
