"""Schedules start each of their times once: overlaps, catching up, clocks that jump, crashes, several workers."""

import asyncio
import itertools
import logging
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update
from worker_process import counted, ticked

from lib_events.clock import to_micros
from lib_events.event import Event
from lib_events.lifecycle import running
from lib_events.tables import events
from lib_events.testing import FakeClock, wait_until
from lib_workflows import At, Context, Cron, Engine, Every, Principal, Registry, Signal, workflow
from lib_workflows.errors import (
    DefinitionError,
    ScheduleDeclared,
    ScheduleExists,
    ScheduleInvalid,
    ScheduleNotFound,
    UnknownWorkflow,
)
from lib_workflows.reading import queries
from lib_workflows.reading.queries import RunFilter
from lib_workflows.scheduling import scheduler
from lib_workflows.scheduling.firing import fire, what_is_due
from lib_workflows.scheduling.schedule import Plan, Schedule
from lib_workflows.tables import schedules
from lib_workflows.testing import environment, survive
from lib_workflows.workers.unclaimed import UnclaimedAlarm

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOURLY = Every(HOUR)
go_on = Signal("go-on", str)


@workflow(name="tick")
async def tick(ctx: Context, word: str = "tick") -> str:
    return word


@workflow(name="long")
async def long(ctx: Context) -> str:
    return await ctx.wait_signal(go_on)


@workflow(name="declared", schedule=Cron("0 6 * * *", "Europe/Berlin"))
async def declared(ctx: Context) -> str:
    return ctx.run.tags["scheduled_for"]


WORKFLOWS = [tick, long]


class Clock(FakeClock):
    """Goes forward, and back, as it is told."""

    def set(self, moment):
        self.advance(moment - datetime.fromtimestamp(self.micros() / 1e6, UTC))


@asynccontextmanager
async def engine_at(url, moment=START, workflows=WORKFLOWS):
    clock = Clock(to_micros(moment))
    async with Engine.open(url, workflows, clock=clock) as engine:
        yield engine, clock


def move(engine, clock, moment):
    """It is `moment`: what is due by now is looked for."""
    clock.set(moment)
    engine.residence.timers.fire_due()
    engine.residence.beside[0].wake()


async def run_ids(engine):
    found = await engine.database.read(queries.list_runs, RunFilter(), None, 200)
    return sorted(run.id for run in found.items)


async def has_runs(engine, *ids):
    async def look():
        return await run_ids(engine) == sorted(ids)

    await wait_until(look)


async def told(engine, noun="evs.schedule."):
    """The events about schedules, in order."""

    def read(connection):
        query = select(events.c.body).where(events.c.type.like(f"{noun}%")).order_by(events.c.sequence)
        return [Event.from_json(body) for body in connection.scalars(query)]

    return await engine.database.read(read)


async def skips(engine):
    return [
        (event.data["reason"], event.data["due_at"][11:16], (event.data["until"] or "")[11:16])
        for event in await told(engine, "evs.schedule.skipped")
    ]


def id_of(hour, name="s", day=1):
    return f"schedule~{name}~202601{day:02}T{hour:02}0000Z"


async def test_each_time_starts_one_run_that_knows_its_time_and_whose_it_is(database_url):
    async with environment(database_url, WORKFLOWS, start=START) as env:
        schedules = env.engine.schedules
        anna = Principal("u1", "anna")
        await schedules.create("s", tick, "hello", timing=HOURLY, tags={"team": "blue"}, principal=anna)
        await env.skip(timedelta(hours=2, minutes=30))
        await has_runs(env.engine, id_of(1), id_of(2))
        run = await env.engine.database.read(queries.get_run, id_of(2))
        assert await env.engine.handle(id_of(2), tick).result(10) == "hello"
        assert (run.principal.subject, run.principal.username) == ("u1", "anna")
        assert run.tags == {"team": "blue", "schedule": "s", "scheduled_for": "2026-01-01T02:00:00+00:00"}
        assert [event.type for event in await told(env.engine)] == [
            "evs.schedule.created",
            "evs.schedule.fired",
            "evs.schedule.fired",
        ]
        fired = (await told(env.engine))[-1]
        assert (fired.data["run"], fired.data["kind"], fired.subject) == (id_of(2), "due", "s")
        assert fired.extensions["correlationid"] == id_of(2)
        shown = await schedules.get("s")
        assert (shown.fired, shown.skipped) == (2, 0)
        assert schedules.next_times(shown, 2) == [START + 3 * HOUR, START + 4 * HOUR]
        assert [(found.id, found.kind) for found in await schedules.runs("s")] == [
            (id_of(2), "due"),
            (id_of(1), "due"),
        ]


async def test_what_comes_while_a_run_is_under_way_is_skipped(database_url):
    async with engine_at(database_url) as (engine, clock):
        await engine.schedules.create("s", long, timing=HOURLY)
        for hour in (1, 2, 3):
            move(engine, clock, START + hour * HOUR)
            await wait_until(lambda hour=hour: has_next(engine, START + (hour + 1) * HOUR))
        await has_runs(engine, id_of(1))
        assert await skips(engine) == [("overlap", "02:00", ""), ("overlap", "03:00", "")]
        await engine.handle(id_of(1)).signal(go_on, "on")
        await engine.handle(id_of(1)).result(10)
        move(engine, clock, START + 4 * HOUR)
        await has_runs(engine, id_of(1), id_of(4))


async def has_passed(engine, name, moment):
    return (await engine.schedules.get(name)).next_at > to_micros(moment)


async def has_next(engine, moment, name="s"):
    return (await engine.schedules.get(name)).next_at == to_micros(moment)


async def test_runs_beside_one_another_are_allowed_where_that_is_wanted(database_url):
    async with engine_at(database_url) as (engine, clock):
        await engine.schedules.create("s", long, timing=HOURLY, overlap="allow")
        for hour in (1, 2):
            move(engine, clock, START + hour * HOUR)
            await wait_until(lambda hour=hour: has_next(engine, START + (hour + 1) * HOUR))
        await has_runs(engine, id_of(1), id_of(2))
        assert await skips(engine) == []


async def test_one_time_waits_for_the_run_under_way_to_end_and_the_others_are_skipped(database_url):
    async with engine_at(database_url) as (engine, clock):
        await engine.schedules.create("s", long, timing=HOURLY, overlap="buffer_one")
        for hour in (1, 2, 3):
            move(engine, clock, START + hour * HOUR)
            await wait_until(lambda hour=hour: has_next(engine, START + (hour + 1) * HOUR))
        await has_runs(engine, id_of(1))
        assert await skips(engine) == [("overlap", "03:00", "")]
        await engine.handle(id_of(1)).signal(go_on, "on")
        await has_runs(engine, id_of(1), id_of(2))
        assert (await told(engine, "evs.schedule.fired"))[-1].data["kind"] == "waited"


async def test_the_run_under_way_is_cancelled_and_the_last_time_follows_it(database_url):
    async with engine_at(database_url) as (engine, clock):
        await engine.schedules.create("s", long, timing=HOURLY, overlap="cancel_other")
        move(engine, clock, START + HOUR)
        await has_runs(engine, id_of(1))
        move(engine, clock, START + 2 * HOUR)
        await has_runs(engine, id_of(1), id_of(2))
        assert (await engine.database.read(queries.get_run, id_of(1))).status == "cancelled"
        assert await skips(engine) == []


async def test_after_a_time_away_one_run_starts_not_a_storm(database_url):
    async with engine_at(database_url) as (engine, _):
        await engine.schedules.create("s", tick, timing=HOURLY)
    async with engine_at(database_url, START + timedelta(hours=5, minutes=30)) as (engine, _):
        await has_runs(engine, id_of(5))
        assert await skips(engine) == [("missed", "01:00", "04:00")]
        assert await has_next(engine, START + 6 * HOUR)


async def test_after_a_time_away_every_time_within_the_window_counts_where_that_is_wanted(database_url):
    async with engine_at(database_url) as (engine, _):
        window = timedelta(hours=2, minutes=45)
        options = {"catch_up": "all", "catch_up_window": window, "overlap": "allow"}
        await engine.schedules.create("s", tick, timing=HOURLY, **options)
    async with engine_at(database_url, START + timedelta(hours=5, minutes=30)) as (engine, _):
        await has_runs(engine, id_of(3), id_of(4), id_of(5))
        assert await skips(engine) == [("missed", "01:00", "02:00")]


async def test_what_is_older_than_the_window_starts_nothing(database_url):
    async with engine_at(database_url) as (engine, _):
        await engine.schedules.create("s", tick, timing=HOURLY, catch_up_window=timedelta(minutes=10))
    async with engine_at(database_url, START + timedelta(hours=5, minutes=30)) as (engine, clock):
        await wait_until(lambda: has_next(engine, START + 6 * HOUR))
        assert await run_ids(engine) == []
        assert await skips(engine) == [("missed", "01:00", "05:00")]
        move(engine, clock, START + timedelta(hours=6, minutes=5))
        await has_runs(engine, id_of(6))


async def test_more_times_than_a_transaction_takes_are_caught_up_with(database_url):
    async with engine_at(database_url) as (engine, _):
        await engine.schedules.create("s", tick, timing=Every(timedelta(minutes=1)), catch_up="all", overlap="allow")
    async with engine_at(database_url, START + timedelta(hours=2)) as (engine, _):
        await wait_until(lambda: has_fired(engine, 120))


async def has_fired(engine, count):
    return (await engine.schedules.get("s")).fired == count


async def test_a_clock_that_goes_back_fires_nothing_twice(database_url):
    async with engine_at(database_url) as (engine, clock):
        await engine.schedules.create("s", tick, timing=HOURLY)
        move(engine, clock, START + HOUR)
        await has_runs(engine, id_of(1))
        assert await engine.handle(id_of(1), tick).result(10) == "tick"
        move(engine, clock, START - 5 * HOUR)
        move(engine, clock, START + timedelta(hours=1, minutes=59))
        await engine.database.read(lambda connection: None)
        assert await has_next(engine, START + 2 * HOUR)
        # Changed while the clock is back, it comes to the same time again, and its run is there.
        clock.set(START)
        await engine.schedules.pause("s")
        await engine.schedules.resume("s")
        move(engine, clock, START + HOUR)
        await wait_until(lambda: has_next(engine, START + 2 * HOUR))
        assert await skips(engine) == [("exists", "01:00", "")]
        await has_runs(engine, id_of(1))


async def test_a_clock_that_goes_forward_is_a_time_away(database_url):
    async with engine_at(database_url) as (engine, clock):
        await engine.schedules.create("s", tick, timing=HOURLY)
        move(engine, clock, START + timedelta(days=30))
        await has_runs(engine, id_of(0, day=31))


async def test_jitter_is_the_same_on_every_worker_and_bounded(database_url):
    jitter = timedelta(minutes=10)
    async with environment(database_url, WORKFLOWS, start=START) as env:
        schedule = await env.engine.schedules.create("s", tick, timing=HOURLY, jitter=jitter)
        due_at = to_micros(START + HOUR)
        assert due_at < schedule.fire_at <= to_micros(START + HOUR + jitter)
        assert schedule.fire_at == schedule.fires_at(due_at)
        spread = {schedule.fires_at(due_at + n * 3_600_000_000) % 3_600_000_000 for n in range(50)}
        assert len(spread) > 40
        await env.skip(HOUR)
        assert await run_ids(env.engine) == []
        await env.skip(jitter)
        await has_runs(env.engine, id_of(1))  # whenever it starts, it is the run of its time


def test_a_time_whose_jitter_has_not_passed_is_not_missed(subtests):
    now = to_micros(START + timedelta(hours=10, minutes=1))
    for catch_up, jitter in itertools.product(("one", "all"), (1, 5)):
        window = timedelta(hours=2)
        plan = Plan(workflow="tick", timing=HOURLY, jitter=jitter * HOUR, catch_up=catch_up, catch_up_window=window)
        for name in map(str, range(20)):
            schedule = schedule_of(name, plan, next_at=to_micros(START))
            with subtests.test(catch_up, name=name, jitter=jitter):
                due = what_is_due(schedule, now)
                missed = {at for at in hours() if due.missed and due.missed[0] <= at <= due.missed[1]}
                assert {*due.times} | missed == {at for at in hours() if at < due.next_at}
                assert all(schedule.fires_at(at) <= now for at in due.times)
                if catch_up == "all":
                    assert all(at < now - 3_600_000_000 * (2 + jitter) for at in missed)


def hours():
    return [to_micros(START + n * HOUR) for n in range(24)]


def schedule_of(name, plan, **values):
    states = dict.fromkeys(("paused", "declared"), False) | dict.fromkeys(("principal", "fire_at", "waiting_at"))
    counts = dict.fromkeys(("revision", "fired", "skipped", "created_at", "changed_at"), 0)
    return Schedule(name=name, plan=plan, note="", **states, **counts, **values)


async def test_a_paused_schedule_starts_nothing_and_goes_on_from_when_it_is_resumed(database_url):
    async with environment(database_url, WORKFLOWS, start=START) as env:
        schedules = env.engine.schedules
        await schedules.create("s", tick, timing=HOURLY)
        paused = await schedules.pause("s", note="the bank is closed")
        assert (paused.paused, paused.note, paused.next_at) == (True, "the bank is closed", None)
        await env.skip(3 * HOUR)
        assert not (await schedules.resume("s")).paused
        await env.skip(HOUR)
        await has_runs(env.engine, id_of(4))
        assert [event.type.removeprefix("evs.schedule.") for event in await told(env.engine)] == [
            "created",
            "paused",
            "resumed",
            "fired",
        ]


async def test_a_past_range_is_filled_with_the_runs_it_lacks(database_url):
    async with environment(database_url, WORKFLOWS, start=START) as env:
        schedules = env.engine.schedules
        await schedules.create("s", tick, timing=HOURLY)
        await env.skip(timedelta(hours=1, minutes=1))
        bob = Principal("u2", "bob")
        begin = START - 2 * HOUR
        lacking = await schedules.lacking("s", begin, START + timedelta(hours=1, seconds=1))
        assert lacking == [begin, START - HOUR, START]
        started = await schedules.backfill("s", begin, START + timedelta(hours=1, seconds=1), principal=bob)
        assert started == [f"schedule~s~20251231T2{n}0000Z" for n in (2, 3)] + [id_of(0)]  # and not that of 01:00
        assert await schedules.backfill("s", begin, START) == []
        run = await env.engine.database.read(queries.get_run, id_of(0))
        assert run.principal.subject == "u2"
        for since, until in ((START, START), (START, START + timedelta(days=9)), (START - timedelta(days=900), START)):
            with pytest.raises(ScheduleInvalid):
                await schedules.backfill("s", since, until)
        with pytest.raises(DefinitionError):
            await schedules.backfill("s", begin.replace(tzinfo=None), START)


async def test_a_trigger_starts_a_run_now_also_of_a_paused_schedule(database_url):
    async with environment(database_url, WORKFLOWS, start=START) as env:
        schedules = env.engine.schedules
        await schedules.create("s", tick, "now", timing=HOURLY, paused=True)
        one, other = await schedules.trigger("s"), await schedules.trigger("s")
        assert one != other
        assert one.startswith("schedule~s~")
        assert await env.result(env.engine.handle(one, tick)) == "now"
        assert [found.kind for found in await schedules.runs("s")] == ["trigger", "trigger"]


async def test_a_changed_schedule_starts_something_else_in_the_name_of_who_changed_it(database_url):
    async with environment(database_url, WORKFLOWS, start=START) as env:
        schedules = env.engine.schedules
        await schedules.create("s", tick, "one", timing=HOURLY, principal=Principal("u1"))

        def revise(plan):
            return Plan(workflow="tick", timing=Every(timedelta(minutes=30)), input='"other"')

        await schedules.change("s", revise, principal=Principal("u2"))
        await env.skip(timedelta(minutes=31))
        handle = env.engine.handle("schedule~s~20260101T003000Z", tick)
        assert await env.result(handle) == "other"
        assert (await env.engine.database.read(queries.get_run, handle.id)).principal.subject == "u2"


async def test_a_deleted_schedule_is_gone_and_its_runs_stay(database_url):
    async with environment(database_url, WORKFLOWS, start=START) as env:
        schedules = env.engine.schedules
        await schedules.create("s", tick, timing=HOURLY)
        await env.skip(HOUR)
        await schedules.delete("s")
        await env.skip(HOUR)
        await has_runs(env.engine, id_of(1))
        for gone in (schedules.get, schedules.delete, schedules.pause, schedules.resume, schedules.trigger):
            with pytest.raises(ScheduleNotFound):
                await gone("s")
        # Made anew, it goes on; a time it has run for before has its run.
        await schedules.create("s", tick, timing=HOURLY)
        assert await schedules.backfill("s", START + HOUR, START + timedelta(hours=1, seconds=1)) == []


async def test_what_makes_no_sense_is_refused_and_leaves_nothing_behind(database_url, subtests):
    async with engine_at(database_url) as (engine, _):
        schedules = engine.schedules
        past = At((START - HOUR,))
        for field, options in {
            "name": {"name": "a/b"},
            "times": {"timing": past},
            "timing": {"timing": "0 6 * * *"},
            "overlap": {"overlap": "maybe"},
            "catch_up": {"catch_up": "some"},
            "catch_up_window": {"catch_up_window": timedelta(seconds=1)},
            "jitter": {"jitter": timedelta(days=2)},
            "queue": {"queue": ""},
            "tags": {"tags": {"schedule": "mine"}},
        }.items():
            given = {"timing": HOURLY} | options
            with subtests.test(field), pytest.raises(ScheduleInvalid) as refused:
                await schedules.create(given.pop("name", "s"), tick, **given)
            assert refused.value.field == field
            assert str(refused.value).startswith(f"{field} must ")
        with pytest.raises(UnknownWorkflow):
            await schedules.add("s", Plan(workflow="nobody", timing=HOURLY))
        assert (await schedules.list()).items == []
        await schedules.create("s", tick, timing=HOURLY)
        with pytest.raises(ScheduleExists):
            await schedules.create("s", tick, timing=HOURLY)


async def test_a_list_that_has_ended_rests(database_url):
    async with environment(database_url, WORKFLOWS, start=START) as env:
        await env.engine.schedules.create("s", tick, timing=At((START + HOUR,)))
        await env.skip(HOUR)
        await has_runs(env.engine, id_of(1))
        assert (await env.engine.schedules.get("s")).next_at is None


async def test_a_schedule_beside_its_workflow_belongs_to_the_code(database_url):
    async with engine_at(database_url, workflows=[declared]) as (engine, clock):
        move(engine, clock, START + 5 * HOUR)  # 06:00 in Berlin
        run_id = id_of(5, "declared")
        await has_runs(engine, run_id)
        assert await engine.handle(run_id, declared).result(10) == "2026-01-01T05:00:00+00:00"
        for refused in (engine.schedules.delete("declared"), engine.schedules.change("declared", lambda plan: plan)):
            with pytest.raises(ScheduleDeclared):
                await refused
        await engine.schedules.pause("declared")

    @workflow(name="declared", schedule=HOURLY)
    async def changed(ctx: Context) -> None: ...

    async with engine_at(database_url, workflows=[changed]) as (engine, _):
        shown = await engine.schedules.get("declared")
        assert (shown.plan.timing, shown.paused) == (HOURLY, True)

    @workflow(name="declared")
    async def bare(ctx: Context) -> None: ...

    async with engine_at(database_url, workflows=[bare]) as (engine, _):
        assert (await engine.schedules.list()).items == []


def test_a_declared_schedule_must_be_one_and_do_without_input():
    with pytest.raises(DefinitionError, match="must be Cron"):
        workflow(name="w", schedule="@daily")(declared.function)

    async def needs(ctx: Context, word: str) -> None: ...

    with pytest.raises(DefinitionError, match="do without input"):
        workflow(name="w", schedule=HOURLY)(needs)


async def test_a_schedule_whose_workflow_nobody_holds_is_told_of(database_url, caplog):
    async with engine_at(database_url) as (engine, _):
        await engine.schedules.create("s", tick, timing=HOURLY)
    async with engine_at(database_url, START + 2 * HOUR, workflows=[long]) as (engine, clock):
        with caplog.at_level(logging.ERROR):
            async with running(UnclaimedAlarm(engine.database, clock, look_seconds=0.005)):
                await wait_until(lambda: "schedule s is due and nobody" in caplog.text)
        assert await run_ids(engine) == []


async def test_schedules_that_cannot_fire_do_not_hold_up_the_others(database_url, caplog, monkeypatch):
    monkeypatch.setattr(scheduler, "LOOK_LIMIT", 1)  # however many there are: they come first in every look
    async with engine_at(database_url) as (engine, clock):
        await engine.schedules.create("a", tick, timing=HOURLY)
        await engine.schedules.create("s", tick, timing=HOURLY)
        nonsense = '{"cron": "0 6 * * *", "timezone": "Atlantis/Harbour"}'
        await engine.database.transact(
            lambda connection: connection.execute(
                update(schedules).where(schedules.c.name == "a").values(timing=nonsense, fire_at=1)
            )
        )
        move(engine, clock, START + HOUR)
        await has_runs(engine, id_of(1))
        assert "schedule a cannot fire now" in caplog.text
        assert [shown.name for shown in (await engine.schedules.list()).items] == ["s"]
        assert "schedule a cannot be read" in caplog.text


@pytest.mark.postgresql
async def test_workers_that_start_at_once_declare_a_schedule_once(postgresql_url):
    async with AsyncExitStack() as stack:
        database = (await stack.enter_async_context(engine_at(postgresql_url)))[0].database
        engines = [Engine(database, Registry.of([declared])) for _ in range(4)]
        await asyncio.gather(*(stack.enter_async_context(engine) for engine in engines))
        assert [found.name for found in (await engines[0].schedules.list()).items] == ["declared"]


@pytest.mark.postgresql
async def test_of_several_workers_one_fires_each_time(postgresql_url):
    clock = Clock(to_micros(START))
    async with (
        Engine.open(postgresql_url, WORKFLOWS, clock=clock) as one,
        Engine.open(postgresql_url, WORKFLOWS, clock=clock) as two,
    ):
        third = Engine(one.database, Registry.of(WORKFLOWS), clock=clock)
        async with third:
            await one.schedules.create("s", tick, timing=Every(timedelta(minutes=1)), overlap="allow")
            for minute in range(1, 11):
                clock.set(START + timedelta(minutes=minute))
                for engine in (one, two, third):
                    engine.residence.beside[0].wake()
                await wait_until(lambda minute=minute: has_fired(one, minute))
        fired = await told(one, "evs.schedule.fired")
        assert len({event.data["run"] for event in fired}) == len(fired) == 10


@asynccontextmanager
async def worker_process(url):
    """A worker in a process of its own."""
    program = str(Path(__file__).with_name("worker_process.py"))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = await asyncio.create_subprocess_exec(sys.executable, program, url, "0.5", **pipes)
    try:
        assert await asyncio.wait_for(process.stdout.readline(), 60) == b"begun\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.postgresql
async def test_a_worker_killed_between_times_leaves_each_time_one_run(postgresql_url):
    async with (
        Engine.open(postgresql_url, [ticked], works=False) as front,
        worker_process(postgresql_url) as victim,
        worker_process(postgresql_url),
    ):
        begin = datetime.now(UTC)
        times = tuple(begin + timedelta(milliseconds=50 * number) for number in range(4, 44))
        options = {"overlap": "allow", "catch_up": "all"}
        schedule = await front.schedules.create("s", ticked, timing=At(times), **options)
        await wait_until(lambda: has_fired_some(front))
        victim.kill()
        wanted = sorted(schedule.run_id(to_micros(moment)) for moment in times)

        async def have_all_run():
            return await front.database.read(counted, "s") == wanted

        await wait_until(have_all_run)
        assert await has_fired(front, len(times))


async def has_fired_some(engine):
    return (await engine.schedules.get("s")).fired > 3


@pytest.mark.timeout(240)
@pytest.mark.parametrize("after", [False, True], ids=["before the commit", "after the commit"])
@pytest.mark.parametrize("overlap", ["skip", "buffer_one"])
async def test_a_crash_at_every_commit_fires_each_time_once(database_url, after, overlap):
    number, crashed = 0, True
    while crashed:
        number += 1
        name = f"s{number}"
        clock = Clock(to_micros(START))

        async def scenario(engine, name=name, clock=clock):
            with suppress(ScheduleExists):
                await engine.schedules.create(name, tick, timing=HOURLY, overlap=overlap)
            for hour in (1, 2):
                if clock.micros() < to_micros(START + hour * HOUR):
                    clock.set(START + hour * HOUR)
                engine.residence.beside[0].wake()
                await wait_until(lambda hour=hour: has_passed(engine, name, START + hour * HOUR))
                await engine.handle(id_of(hour, name), tick).result(10)
            fired = await told(engine, "evs.schedule.fired")
            return [event.data["run"] for event in fired if event.subject == name]

        fired, crashed = await survive(
            database_url, WORKFLOWS, scenario, crash_at=number, after=after, lease_seconds=0.2, clock=clock
        )
        assert fired == [id_of(1, name), id_of(2, name)], f"crash at {number}"
    assert number > 4


async def test_schedules_that_rest_ask_the_database_nothing_in_between(sqlite_url, monkeypatch):
    asked = []
    async with engine_at(sqlite_url) as (engine, _):
        await engine.schedules.create("s", tick, timing=HOURLY)
        scheduler = engine.residence.beside[0]
        await wait_until(lambda: scheduler.is_pausing)
        fire_all = scheduler._fire_all

        async def counted():
            asked.append(1)
            await fire_all()

        monkeypatch.setattr(scheduler, "_fire_all", counted)
        for _ in range(20):
            await engine.start(tick)
        assert asked == []


async def test_a_schedule_that_is_made_anew_while_it_is_due_starts_nothing_for_the_one_before(database_url):
    clock = FakeClock(to_micros(START))
    async with Engine.open(database_url, WORKFLOWS, clock=clock, works=False) as engine:
        await engine.schedules.create("nightly", tick, timing=HOURLY)
        seen = await engine.schedules.get("nightly")
        clock.advance(HOUR)
        now = clock.micros()
        due = what_is_due(seen, now)
        assert len(due.times) == 1
        await engine.schedules.delete("nightly")
        anew = await engine.schedules.create("nightly", tick, timing=HOURLY)
        assert anew.revision == seen.revision
        assert not await engine.database.transact(fire, seen, due, tick, now)
        assert await engine.schedules.get("nightly") == anew
