"""Schedules as an engine offers them: each command is one transaction, durable when it returns."""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, func, select

from lib_events.clock import Clock, to_datetime
from lib_events.database import Connection, Database
from lib_workflows.authoring.messages import Principal
from lib_workflows.authoring.timing import Timing, times_after
from lib_workflows.authoring.workflow import Registry, Workflow
from lib_workflows.errors import ScheduleInvalid
from lib_workflows.paging import Page, cut, decode_cursor, encode_cursor
from lib_workflows.scheduling import commands as schedule_commands
from lib_workflows.scheduling.firing import AT_ONCE, fire_now
from lib_workflows.scheduling.schedule import CatchUp, Overlap, Plan, Schedule
from lib_workflows.tables import runs, schedule_runs, schedules
from lib_workflows.values.durations import check_moment
from lib_workflows.values.identifiers import SCHEDULED_PREFIX, time_ordered_id

logger = logging.getLogger(__name__)

BACKFILL_LIMIT = 1_000
RUNS_SHOWN = 10
TIMES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class ScheduledRun:
    """One of the last runs of a schedule."""

    id: str
    kind: str
    due_at: datetime
    started_at: datetime
    status: str | None  # None: the run is not kept any more


class Schedules:
    """The schedules on a database."""

    def __init__(self, database: Database, registry: Registry, *, clock: Clock) -> None:
        self._database = database
        self._registry = registry
        self._clock = clock

    async def create[*In](
        self,
        name: str,
        workflow: Workflow[*In, Any],
        *args: *In,
        timing: Timing,
        overlap: Overlap = "skip",
        catch_up: CatchUp = "one",
        catch_up_window: timedelta = timedelta(days=1),
        jitter: timedelta = timedelta(),
        queue: str | None = None,
        tags: Mapping[str, str] | None = None,
        paused: bool = False,
        note: str = "",
        principal: Principal | None = None,
    ) -> Schedule:
        """Make a schedule that starts `workflow` with this input; raises `ScheduleInvalid`, `ScheduleExists`."""
        plan = Plan(
            workflow=workflow.name,
            timing=timing,
            input=workflow.encode_input(args),
            queue=queue,
            tags=tags or {},
            overlap=overlap,
            catch_up=catch_up,
            catch_up_window=catch_up_window,
            jitter=jitter,
        )
        return await self.add(name, plan, paused=paused, note=note, principal=principal)

    async def add(
        self, name: str, plan: Plan, *, paused: bool = False, note: str = "", principal: Principal | None = None
    ) -> Schedule:
        """Make a schedule of a plan whose input is checked; raises `UnknownWorkflow` beside the others."""
        self._registry.find(plan.workflow)
        now = self._clock.micros()

        def create(connection: Connection) -> Schedule:
            return schedule_commands.create(connection, name, plan, now, principal=principal, paused=paused, note=note)

        return await self._database.transact(create)

    async def change(
        self, name: str, revise: Callable[[Plan], Plan], *, principal: Principal | None = None
    ) -> Schedule:
        """Give a schedule the plan that `revise` makes of its own; its runs are then the principal's."""
        now = self._clock.micros()

        def change(connection: Connection) -> Schedule:
            plan = revise(schedule_commands.lock(connection, name).plan)
            self._registry.find(plan.workflow)
            return schedule_commands.change(connection, name, plan, now, principal=principal)

        return await self._database.transact(change)

    async def get(self, name: str) -> Schedule:
        """A schedule; raises `ScheduleNotFound`."""
        return await self._database.read(schedule_commands.find, name)

    async def list(self, *, cursor: str | None = None, limit: int = 50) -> Page[Schedule]:
        """The schedules that can be read, by name."""
        return await self._database.read(_list, cursor, limit)

    async def runs(self, name: str, *, limit: int = RUNS_SHOWN) -> Sequence[ScheduledRun]:
        """Its last runs, the newest first."""
        return (await self.runs_of([name], limit=limit)).get(name, ())

    async def runs_of(self, names: Sequence[str], *, limit: int = RUNS_SHOWN) -> Mapping[str, Sequence[ScheduledRun]]:
        """The last runs of several schedules, of each at most `limit`, the newest first."""
        return await self._database.read(_runs_of, names, limit)

    def next_times(self, schedule: Schedule, count: int = TIMES_SHOWN) -> Sequence[datetime]:
        """When it is due next; also of one that is paused, as if it were not."""
        return self.preview(schedule.plan.timing, count)

    def preview(self, timing: Timing, count: int = TIMES_SHOWN) -> Sequence[datetime]:
        """When a timing that no schedule has yet would be due next."""
        return [to_datetime(at) for at in times_after(timing, self._clock.micros(), count)]

    async def pause(self, name: str, *, note: str = "") -> Schedule:
        """Start nothing until it is resumed."""
        return await self._database.transact(schedule_commands.pause, name, self._clock.micros(), note)

    async def resume(self, name: str) -> Schedule:
        """Go on with the next time from now."""
        return await self._database.transact(schedule_commands.resume, name, self._clock.micros())

    async def delete(self, name: str) -> None:
        """Forget a schedule; its runs stay."""
        await self._database.transact(schedule_commands.remove, name, self._clock.micros())

    async def trigger(
        self, name: str, *, principal: Principal | None = None, idempotency_key: str | None = None
    ) -> str:
        """Start a run now, beside whatever is under way, also of one that is paused; returns the run's id.

        The same `idempotency_key` of the principal means the same run.
        """
        schedule, now = await self.get(name), self._clock.micros()
        word = time_ordered_id(now) if idempotency_key is None else _word_of(principal, idempotency_key)
        run_id = f"{SCHEDULED_PREFIX}{name}~{word}"
        await self._fire(schedule, [now], "trigger", run_id=run_id, principal=principal)
        return run_id

    async def backfill(
        self, name: str, since: datetime, until: datetime, *, principal: Principal | None = None
    ) -> Sequence[str]:
        """Start the runs of the times in `since <= time < until` that have none; returns the ids of those.

        In pieces: after a crash, ask again, and what was started is not started twice. Raises `ScheduleInvalid`.
        """
        schedule, times = await self._past_times(name, since, until)
        started: list[str] = []
        for begin in range(0, len(times), AT_ONCE):
            started += await self._fire(schedule, times[begin : begin + AT_ONCE], "backfill", principal=principal)
        return started

    async def lacking(self, name: str, since: datetime, until: datetime) -> Sequence[datetime]:
        """The times in `since <= time < until` that have no run: those that `backfill` would start one for."""
        schedule, times = await self._past_times(name, since, until)
        return await self._database.read(_lacking, schedule, times)

    async def _past_times(self, name: str, since: datetime, until: datetime) -> tuple[Schedule, Sequence[int]]:
        schedule, now = await self.get(name), self._clock.micros()
        first, end = check_moment(since, "since"), check_moment(until, "until")
        if first < 0:
            raise ScheduleInvalid("since", f"must be 1970 or later, got {since}")
        if not first < end <= now:
            raise ScheduleInvalid("until", f"must be after since and not in the future, got {since} to {until}")
        # A quarter of a second for a thousand times of an expression: not on the loop that drives runs.
        times = await asyncio.to_thread(times_after, schedule.plan.timing, first - 1, BACKFILL_LIMIT + 1, end - 1)
        if len(times) > BACKFILL_LIMIT:
            raise ScheduleInvalid("until", f"must leave at most {BACKFILL_LIMIT} times; take a shorter range")
        return schedule, times

    async def _fire(self, schedule: Schedule, times: Sequence[int], kind: Any, **options: Any) -> Sequence[str]:
        workflow, now = self._registry.find(schedule.plan.workflow), self._clock.micros()

        def fire(connection: Connection) -> Sequence[str]:
            return fire_now(connection, schedule.name, workflow, times, kind=kind, now=now, **options)

        return await self._database.transact(fire)


def _word_of(principal: Principal | None, key: str) -> str:
    subject = principal.subject if principal else ""
    return hashlib.blake2b(f"{subject}\0{key}".encode(), digest_size=16).hexdigest()


def _list(connection: Connection, cursor: str | None, limit: int) -> Page[Schedule]:
    query = select(schedules).order_by(schedules.c.name).limit(limit + 1)
    if (after := decode_cursor(cursor, str)) is not None:
        query = query.where(schedules.c.name > after[0])
    rows, last = cut(connection.execute(query).all(), limit)
    return Page([*_readable(rows)], None if last is None else encode_cursor(last.name))


def _readable(rows: Iterable[Row[Any]]) -> Iterator[Schedule]:
    """The schedules that this release can read: one that it cannot, maybe of a later one, must not hide the others."""
    for row in rows:
        try:
            yield Schedule.of(row)
        except Exception:
            logger.exception("schedule %s cannot be read, and is left out of the list", row.name)


def _runs_of(connection: Connection, names: Sequence[str], limit: int) -> Mapping[str, Sequence[ScheduledRun]]:
    newest_first = (schedule_runs.c.started_at.desc(), schedule_runs.c.due_at.desc())
    place = func.row_number().over(partition_by=schedule_runs.c.schedule, order_by=newest_first).label("place")
    each = select(schedule_runs, place).where(schedule_runs.c.schedule.in_(names)).subquery()
    query = select(each, runs.c.status).outerjoin(runs, runs.c.id == each.c.run).where(each.c.place <= limit)
    found: dict[str, list[ScheduledRun]] = {}
    for row in connection.execute(query.order_by(each.c.place)):
        run = ScheduledRun(row.run, row.kind, to_datetime(row.due_at), to_datetime(row.started_at), row.status)
        found.setdefault(row.schedule, []).append(run)
    return found


def _lacking(connection: Connection, schedule: Schedule, times: Sequence[int]) -> Sequence[datetime]:
    ids = [schedule.run_id(at) for at in times]
    known = set(connection.scalars(select(runs.c.id).where(runs.c.id.in_(ids)))) if ids else set()
    return [to_datetime(at) for at, run_id in zip(times, ids, strict=True) if run_id not in known]
