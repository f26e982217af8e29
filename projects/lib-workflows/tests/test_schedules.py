"""Schedules start each of their times once: overlaps, catching up, clocks that jump."""

import itertools
import logging
from datetime import timedelta

import pytest
from scheduled_flows import (
    HOUR,
    HOURLY,
    START,
    WORKFLOWS,
    declared,
    engine_at,
    go_on,
    has_fired,
    has_runs,
    id_of,
    long,
    move,
    run_ids,
    skips,
    tick,
    told,
)
from sqlalchemy import select, update

from lib_events.clock import to_micros
from lib_events.lifecycle import running
from lib_events.testing import wait_until
from lib_workflows import At, Context, Every, Principal, workflow
from lib_workflows.errors import (
    DefinitionError,
    ScheduleDeclared,
    ScheduleExists,
    ScheduleInvalid,
    ScheduleNotFound,
    UnknownWorkflow,
)
from lib_workflows.reading import queries
from lib_workflows.scheduling import commands, scheduler
from lib_workflows.scheduling.firing import what_is_due
from lib_workflows.scheduling.schedule import Plan, Schedule
from lib_workflows.tables import schedules
from lib_workflows.testing import environment
from lib_workflows.workers.unclaimed import UnclaimedAlarm


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
            "jitter that is a number": {"jitter": 5},
            "queue": {"queue": ""},
            "tags": {"tags": {"schedule": "mine"}},
        }.items():
            given = {"timing": HOURLY} | options
            with subtests.test(field), pytest.raises(ScheduleInvalid) as refused:
                await schedules.create(given.pop("name", "s"), tick, **given)
            assert refused.value.field == field.split()[0]
            assert str(refused.value).startswith(f"{field.split()[0]} must ")
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
        await engine.database.transact(make_unreadable, "a")
        move(engine, clock, START + HOUR)
        await has_runs(engine, id_of(1))
        assert "schedule a cannot fire now" in caplog.text
        assert [shown.name for shown in (await engine.schedules.list()).items] == ["s"]
        assert "schedule a cannot be read" in caplog.text


def make_unreadable(connection, name):
    """As a newer release, or one that knows more time zones, may have written it."""
    nonsense = '{"cron": "0 6 * * *", "timezone": "Atlantis/Harbour"}'
    connection.execute(update(schedules).where(schedules.c.name == name).values(timing=nonsense, fire_at=1))


async def test_a_schedule_that_cannot_be_read_is_paused_with_its_owners_others_and_can_be_deleted(database_url):
    async with engine_at(database_url) as (engine, _):
        for name in ("a", "s"):
            await engine.schedules.create(name, tick, timing=HOURLY, principal=Principal("ada", "ada"))
        await engine.database.transact(make_unreadable, "a")
        await engine.database.transact(commands.pause_all_of, "ada", 1, "left")
        paused = select(schedules.c.name).where(schedules.c.paused).order_by(schedules.c.name)
        assert await engine.database.read(lambda connection: list(connection.scalars(paused))) == ["a", "s"]
        await engine.schedules.delete("a")
        with pytest.raises(ScheduleNotFound):
            await engine.schedules.get("a")


async def test_an_engine_begins_although_the_declared_schedule_of_another_release_cannot_be_read(database_url):
    declared = workflow(name="tick", schedule=HOURLY)(tick.function)
    async with engine_at(database_url, workflows=[declared]) as (engine, _):
        await engine.database.transact(make_unreadable, "tick")
    async with engine_at(database_url, workflows=[declared]) as (engine, _):
        assert (await engine.schedules.get("tick")).plan.timing == HOURLY
        await engine.database.transact(make_unreadable, "tick")
    async with engine_at(database_url, workflows=[tick]) as (engine, _):
        with pytest.raises(ScheduleNotFound):
            await engine.schedules.get("tick")
