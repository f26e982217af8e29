"""A deadline that a workflow declares: every run of it must end in time, whoever or whatever has started it."""

from datetime import timedelta

import pytest
from gathering_flows import Paid, Payment, paid, publish
from queued_flows import go_on, until
from sqlalchemy import select, update

from lib_events.clock import to_datetime
from lib_events.testing import wait_until
from lib_workflows import Batch, Context, Engine, Every, RunFailed, workflow
from lib_workflows.errors import DefinitionError
from lib_workflows.reading.queries import get_run
from lib_workflows.tables import runs
from lib_workflows.testing import environment

HOUR = timedelta(hours=1)
TEN_MINUTES = timedelta(minutes=10)


@workflow(name="hurries", deadline=TEN_MINUTES)
async def hurries(ctx: Context, number: int = 0) -> str:
    return await ctx.wait_signal(go_on)


@workflow(name="pays", on=Paid, deadline=TEN_MINUTES)
async def pays(ctx: Context, payment: Payment) -> str:
    return await ctx.wait_signal(go_on)


@workflow(name="settles", on=Paid, batch=Batch(events=2, timeout=HOUR), deadline=TEN_MINUTES)
async def settles(ctx: Context, payments: list[Payment]) -> str:
    return await ctx.wait_signal(go_on)


@workflow(name="parent")
async def parent(ctx: Context) -> str:
    await ctx.start(hurries, 2, id="apart")
    await ctx.start(hurries, 3, delay=HOUR)
    child, named, longer = ctx.child(hurries, 4), ctx.child(hurries, 5, id="named"), ctx.now() + HOUR
    await ctx.gather(child, named, ctx.child(hurries, 6, deadline=longer))
    return ""


async def time_of(engine, name, *, by_input=False):
    """How long the runs of a workflow may last, to the second, by their input or id."""
    query = select(runs.c.id, runs.c.input, runs.c.deadline_at, runs.c.created_at).where(runs.c.workflow == name)
    rows = await engine.database.read(lambda connection: connection.execute(query).all())
    # Rounded: what a delay is counted from, and when the row was made, are some microseconds apart.
    lasts = [timedelta(seconds=round((row.deadline_at - row.created_at) / 1e6)) for row in rows]
    return dict(zip([row.input if by_input else row.id for row in rows], lasts, strict=True))


async def test_a_run_that_has_not_ended_by_then_fails_and_one_that_has_does_not(database_url):
    async with environment(database_url, [hurries]) as env:
        late, timely = await env.engine.start(hurries), await env.engine.start(hurries)
        await env.skip(timedelta(minutes=9))
        await timely.signal(go_on, "done")
        assert await timely.result(10) == "done"
        await env.skip(timedelta(minutes=2))
        with pytest.raises(RunFailed, match="must end in time"):
            await late.result(10)


async def test_it_is_that_of_runs_from_outside_and_of_runs_and_what_a_start_names_wins(database_url):
    async with Engine.open(database_url, [hurries, parent]) as engine:
        now = to_datetime(engine.clock.micros())
        await engine.start(hurries, id="plain")
        await engine.start(hurries, id="delayed", delay=HOUR)
        await engine.start(hurries, id="longer", deadline=now + timedelta(days=1))
        await engine.start(hurries, id="shorter", deadline=now + timedelta(minutes=1))
        await engine.start_many(hurries, [1])
        asking = await engine.start(parent)
        await until(engine, [engine.handle("named")], "waiting")
        found = await time_of(engine, "hurries")
        assert (found["plain"], found["delayed"]) == (TEN_MINUTES, HOUR + TEN_MINUTES)
        assert timedelta(hours=23) < found["longer"] <= timedelta(days=1)
        assert timedelta(0) < found["shorter"] <= timedelta(minutes=1)
        by_input = await time_of(engine, "hurries", by_input=True)
        assert [by_input[text] for text in "1245"] == [TEN_MINUTES] * 4
        assert by_input["3"] == HOUR + TEN_MINUTES
        assert timedelta(minutes=59) < by_input["6"] <= HOUR
        assert (await engine.database.read(get_run, asking.id)).deadline_at is None


async def test_of_starts_that_are_debounced_the_last_says_from_when_it_counts(database_url):
    async with Engine.open(database_url, [hurries]) as engine:
        handle = await engine.start(hurries, 1, debounce="key", delay=timedelta(minutes=1))
        again = await engine.start(hurries, 2, debounce="key", delay=HOUR)
        assert again.id == handle.id
        (lasts,) = (await time_of(engine, "hurries")).values()
        assert HOUR + TEN_MINUTES <= lasts < HOUR + TEN_MINUTES + timedelta(minutes=1)


async def test_it_is_that_of_runs_that_events_and_schedules_start(database_url):
    async with environment(database_url, [hurries, pays, settles]) as env:
        await publish(env.engine, paid(1), paid(2))
        await env.engine.schedules.create("hourly", hurries, 7, timing=Every(HOUR))
        await env.skip(HOUR)

        async def all_started():
            names = ("pays", "settles", "hurries")
            return [len(await time_of(env.engine, name)) for name in names] == [2, 1, 1]

        await wait_until(all_started)
        for name in ("pays", "settles", "hurries"):
            assert set((await time_of(env.engine, name)).values()) == {TEN_MINUTES}, name


async def test_a_release_that_declares_another_one_changes_what_events_start(database_url):
    @workflow(name="pays", version=2, on=Paid, deadline=HOUR)
    async def newer(ctx: Context, payment: Payment) -> str:
        return await ctx.wait_signal(go_on)

    @workflow(name="settles", version=2, on=Paid, batch=Batch(events=2, timeout=HOUR), deadline=HOUR)
    async def settles_newer(ctx: Context, payments: list[Payment]) -> str:
        return await ctx.wait_signal(go_on)

    async with Engine.open(database_url, [pays, settles]) as engine:
        await publish(engine, paid(1))
        await wait_until(lambda: _has(engine, "pays", 1))
    async with Engine.open(database_url, [pays, settles, newer, settles_newer]) as engine:
        await publish(engine, paid(2))
        await wait_until(lambda: _has(engine, "pays", 2))
        await wait_until(lambda: _has(engine, "settles", 1))
        assert sorted((await time_of(engine, "pays")).values()) == [TEN_MINUTES, HOUR]
        assert list((await time_of(engine, "settles")).values()) == [HOUR]


async def _has(engine, name, number):
    return len(await time_of(engine, name)) == number


async def test_a_retry_and_a_fork_have_the_whole_time_again(database_url):
    async with environment(database_url, [hurries]) as env:
        handle = await env.engine.start(hurries)
        await env.skip(TEN_MINUTES)
        with pytest.raises(RunFailed):
            await handle.result(10)
        await env.skip(HOUR)
        await handle.retry()
        fork = await handle.fork()
        await until(env.engine, [handle, fork], "waiting", "waiting")
        now = to_datetime(env.engine.clock.micros())
        for each in (handle, fork):
            run = await env.engine.database.read(get_run, each.id)
            assert timedelta(0) < run.deadline_at - now <= TEN_MINUTES
        await env.skip(TEN_MINUTES)
        await until(env.engine, [handle, fork], "failed", "failed")


async def test_a_retry_within_the_time_has_all_of_it_and_one_whose_start_named_it_has_what_is_left(database_url):
    async with environment(database_url, [hurries]) as env:
        named = to_datetime(env.engine.clock.micros()) + timedelta(minutes=7)
        declared, told = await env.engine.start(hurries), await env.engine.start(hurries, deadline=named)
        await env.skip(timedelta(minutes=5))
        for each in (declared, told):
            await each.cancel("a mistake")
        await until(env.engine, [declared, told], "cancelled", "cancelled")
        for each in (declared, told):
            await each.retry()
        await env.skip(timedelta(minutes=3))
        await until(env.engine, [declared, told], "waiting", "failed")


async def test_time_in_a_queue_counts(database_url):
    async with environment(database_url, [hurries]) as env:
        await env.engine.queues.pause("paused")
        handle = await env.engine.start(hurries, queue="paused")
        await env.skip(TEN_MINUTES)
        with pytest.raises(RunFailed, match="must end in time"):
            await handle.result(10)


async def test_a_run_that_continues_as_new_keeps_its_deadline(database_url):
    @workflow(name="lives", deadline=TEN_MINUTES)
    async def lives(ctx: Context, life: int) -> None:
        await ctx.sleep(timedelta(minutes=3))
        await ctx.continue_as_new(life + 1)

    async with environment(database_url, [lives]) as env:
        handle = await env.engine.start(lives, 0)
        with pytest.raises(RunFailed, match="must end in time"):
            await env.result(handle)


async def test_runs_of_before_have_the_deadline_they_had(database_url):
    async with Engine.open(database_url, [hurries]) as engine:
        handle = await engine.start(hurries)
        without = update(runs).values(deadline_at=None, deadline_micros=None)
        await engine.database.transact(lambda connection: connection.execute(without) and None)
        await handle.cancel("again")
        await until(engine, [handle], "cancelled")
        await handle.retry()
        await until(engine, [handle], "waiting")
        assert (await engine.database.read(get_run, handle.id)).deadline_at is None


@pytest.mark.parametrize("wrong", [timedelta(0), timedelta(seconds=-1), timedelta.max, 5, "soon"])
def test_a_deadline_that_is_no_time_is_refused(wrong):
    with pytest.raises(DefinitionError, match="deadline of workflow w must be"):
        workflow(name="w", deadline=wrong)(hurries.function)
