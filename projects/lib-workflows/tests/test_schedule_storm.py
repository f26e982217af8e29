"""Schedules that are triggered, changed, paused, made anew and backfilled while they fire: each time starts one run."""

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from storm import SIZE, fleet, losing_workers, nothing_is_left, side_by_side

from lib_events.clock import to_datetime, to_micros
from lib_events.event_log import read_after
from lib_events.testing import FakeClock, wait_until
from lib_workflows import Context, Every, workflow
from lib_workflows.authoring.timing import times_after
from lib_workflows.errors import ScheduleExists, ScheduleInvalid, ScheduleNotFound
from lib_workflows.scheduling import commands as schedule_commands
from lib_workflows.scheduling.events import SCHEDULE_FIRED, SCHEDULE_SKIPPED
from lib_workflows.tables import runs

START = datetime(2026, 1, 1, tzinfo=UTC)
ACTS = 12 * SIZE
MINUTE = timedelta(minutes=1)
OVERLAPS = ("skip", "allow", "buffer_one", "cancel_other")
EVERYTHING = ("trigger", "change", "pause", "resume", "backfill", "anew", "resume")


@workflow(name="brief")
async def brief(ctx: Context) -> None:
    await ctx.sleep(1)


class Planner:
    """Does to one schedule what may be done to it."""

    def __init__(self, made, clock, name, possible):
        self.made, self.clock, self.name, self.possible = made, clock, name, possible
        self.triggered = []

    async def act(self):
        chance = self.made.chance
        for _ in range(ACTS):
            await self.made.pause(60)
            await let_pass(self.made, self.clock, chance.choice([1, 7, 30, 61, 150]))
            async with self.made.engine() as engine:
                with suppress(ScheduleExists, ScheduleNotFound, ScheduleInvalid):
                    await self._do(chance.choice(self.possible), engine.schedules, chance)

    async def _do(self, what, of, chance):
        match what:
            case "trigger":
                self.triggered.append(await of.trigger(self.name))
            case "change":
                every = timedelta(seconds=chance.choice([30, 60, 90]))
                await of.change(self.name, lambda plan: replace(plan, timing=Every(every, START)))
            case "pause":
                await of.pause(self.name)
            case "resume":
                await of.resume(self.name)
            case "backfill":
                now = to_datetime(self.clock.micros())
                await of.backfill(self.name, now - 3 * MINUTE, now)
            case "anew":
                await of.delete(self.name)
                await self.create(of, chance.choice(OVERLAPS), chance.choice(["one", "all"]))

    async def create(self, of, overlap="allow", catch_up="all"):
        await of.create(self.name, brief, timing=Every(MINUTE, START), overlap=overlap, catch_up=catch_up)


async def move(made, clock):
    """Let time pass slowly, so that what has begun comes to its end."""
    while True:
        await let_pass(made, clock, 0.1)
        await asyncio.sleep(0.01)


async def let_pass(made, clock, seconds):
    clock.advance(timedelta(seconds=seconds))
    async with made.engine() as engine:
        engine.residence.timers.fire_due()


async def test_each_time_of_a_schedule_starts_one_run(database_url):
    clock = FakeClock(to_micros(START))
    async with fleet(database_url, [brief], "schedules", clock=clock) as made:
        steady = Planner(made, clock, "steady", ["trigger", "backfill"])
        planners = [steady, *(Planner(made, clock, f"plan-{number}", EVERYTHING) for number in range(2))]
        for planner in planners:
            async with made.engine() as engine:
                await planner.create(engine.schedules)
        moving = asyncio.ensure_future(move(made, clock))
        try:
            async with losing_workers(made, 3 * SIZE):
                await side_by_side(*(planner.act() for planner in planners))
            last = await pause_all(made, planners)
            ended = await made.until_ended(await made.read(lambda c: c.scalars(select(runs.c.id)).all()))
        finally:
            moving.cancel()
        await check(made, planners, ended, last)
        await nothing_is_left(made)


async def pause_all(made, planners):
    """Pause all schedules; returns the steady one as it was before."""
    steady = await made.read(schedule_commands.find, "steady")
    async with made.engine() as engine:
        for planner in planners:
            with suppress(ScheduleNotFound):
                await engine.schedules.pause(planner.name)
    return steady


async def check(made, planners, ended, steady):
    assert {run.status for run in ended.values()} <= {"completed", "cancelled"}
    for planner in planners:
        assert set(planner.triggered) <= ended.keys()
    events = await told(made, len(ended))
    fired = Counter(event.data["run"] for event in events if event.type == SCHEDULE_FIRED.name)
    assert fired == Counter(dict.fromkeys(ended, 1))
    # Of the one that nobody changed each time has its run; it fired, or it was there already.
    of_time = Counter(
        event.data["due_at"]
        for event in events
        if event.subject == "steady" and event.data.get("kind", "skipped") in {"due", "skipped"}
    )
    times = times_after(steady.plan.timing, steady.created_at, 10_000, steady.next_at - 1)
    assert {steady.run_id(at) for at in times} <= ended.keys()
    assert set(of_time.values()) == {1}
    assert len(of_time) >= len(times)


async def told(made, count):
    """What the log tells of schedules, once it tells of so many runs."""

    async def look():
        found = await made.read(events_of_schedules)
        return found if sum(event.type == SCHEDULE_FIRED.name for event in found) >= count else None

    return await wait_until(look)


def events_of_schedules(connection):
    found, position, types = [], 0, [SCHEDULE_FIRED.name, SCHEDULE_SKIPPED.name]
    while placed := read_after(connection, position, types=types).events:
        found += [each.event for each in placed]
        position = placed[-1].position
    return found
