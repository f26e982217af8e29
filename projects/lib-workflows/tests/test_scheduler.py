"""Whoever fires schedules: several workers, workers that are killed, crashes at every commit."""

import asyncio
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from scheduled_flows import (
    HOUR,
    HOURLY,
    START,
    WORKFLOWS,
    Clock,
    declared,
    engine_at,
    has_fired,
    has_passed,
    id_of,
    tick,
    told,
)
from worker_process import counted, ticked

from lib_events.clock import to_micros
from lib_events.testing import FakeClock, wait_until
from lib_workflows import At, Engine, Every, Registry
from lib_workflows.errors import ScheduleExists
from lib_workflows.scheduling.firing import fire, what_is_due
from lib_workflows.testing import survive


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
async def test_a_crash_at_any_commit_fires_each_time_once(database_url, after, overlap, crash_places):
    for number in crash_places.of_about(9):
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
        if not crashed:
            break
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
