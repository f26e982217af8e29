"""What a run may say of the runs it starts: where they wait, how urgent they are, from when on, until when, tags."""

from datetime import UTC, datetime, timedelta

import pytest
from queued_flows import go_on, until
from sqlalchemy import select

from lib_workflows import Context, Engine, Queue, WaitTimeout, workflow
from lib_workflows.errors import DefinitionError, QueueInvalid, RunFailed
from lib_workflows.tables import runs
from lib_workflows.testing import environment, survive

DUE = datetime(2040, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@workflow(name="told", queue=Queue("steady", key="to"))
async def told(ctx: Context, number: int) -> dict[str, str]:
    return dict(ctx.run.tags or {})


@workflow(name="waits")
async def waits(ctx: Context) -> str:
    return await ctx.wait_signal(go_on)


@workflow(name="asks")
async def asks(ctx: Context) -> list[dict[str, str]]:
    """Every option, awaited, in a map, and of a run that goes on by itself."""
    options = {"queue": "express", "queue_key": "ada", "priority": 7, "deadline": DUE}
    await ctx.start(told, 0, tags={"n": "apart"}, delay=HOUR, **options)
    await ctx.sleep(0.001)
    child = await ctx.child(told, 1, tags={"n": "child"}, **options)
    mapped = await ctx.map(lambda n: ctx.child(told, n, tags={"n": str(n)}, delay=timedelta(seconds=0.01)), [2, 3])
    return [child, *mapped]


async def rows(engine):
    columns = (runs.c.input, runs.c.queue, runs.c.queue_key, runs.c.priority, runs.c.tags, runs.c.deadline_at)
    query = select(*columns, runs.c.wake_at, runs.c.created_at, runs.c.status).where(runs.c.workflow == "told")
    return (await engine.database.read(lambda c: c.execute(query.order_by(runs.c.input)).all())) or []


async def test_a_child_and_a_run_apart_have_options_of_their_own(database_url):
    async with Engine.open(database_url, [told, asks]) as engine:
        run = await engine.start(asks)
        assert await run.result(20) == [{"n": "child"}, {"n": "2"}, {"n": "3"}]
        apart, child, *mapped = await rows(engine)
        due = int(DUE.timestamp() * 1e6)
        assert tuple(apart[:6]) == ("0", "express", "ada", 7, '{"n":"apart"}', due)
        assert (apart.status, apart.wake_at - apart.created_at) == ("queued", 3_600_000_000)
        assert tuple(child[:6]) == ("1", "express", "ada", 7, '{"n":"child"}', due)
        assert [(row.queue, row.queue_key, row.priority) for row in mapped] == [("steady", None, 0)] * 2


@pytest.mark.timeout(300)
@pytest.mark.parametrize("after", [False, True], ids=["before the commit", "after the commit"])
async def test_a_crash_at_every_commit_starts_each_once_and_as_it_was_asked_for(database_url, after):
    number, crashed = 0, True
    while crashed:
        number += 1

        async def scenario(engine, run_id=f"crash-{number}"):
            run = await engine.start(asks, id=run_id)
            return await run.result(20)

        result, crashed = await survive(
            database_url, [told, asks], scenario, crash_at=number, after=after, lease_seconds=0.2
        )
        assert result == [{"n": "child"}, {"n": "2"}, {"n": "3"}], f"crash at {number}"
        async with Engine.open(database_url, [told, asks], works=False) as engine:
            found = await rows(engine)
        assert [row.input for row in found] == sorted([str(n) for n in range(4)] * number), f"crash at {number}"
    assert number > 5


async def test_a_child_in_a_paused_queue_waits_there_and_is_cancelled_with_its_parent(database_url):
    @workflow(name="parent")
    async def parent(ctx: Context) -> str:
        async with ctx.timeout(0.2):
            return await ctx.child(waits, queue="paused")
        return ""

    async with Engine.open(database_url, [parent, waits]) as engine:
        await engine.queues.pause("paused")
        with pytest.raises((WaitTimeout, RunFailed)):
            await (await engine.start(parent)).result(20)
        child = await engine.database.read(lambda c: c.execute(select(runs).where(runs.c.queue == "paused")).one())
        assert child.status == "cancelled"


async def test_a_child_that_is_late_fails_and_its_parent_goes_on(database_url):
    @workflow(name="parent")
    async def parent(ctx: Context) -> str:
        try:
            return await ctx.child(waits, deadline=ctx.now() + HOUR)
        except RunFailed:
            return "late"

    async with environment(database_url, [parent, waits]) as env:
        assert await env.result(await env.engine.start(parent)) == "late"


async def test_a_fork_and_a_retry_of_the_parent_start_children_as_they_were_asked_for(database_url):
    @workflow(name="parent")
    async def parent(ctx: Context) -> str:
        await ctx.child(told, 1, priority=3)
        return await ctx.wait_signal(go_on)

    async with Engine.open(database_url, [parent, told]) as engine:
        first = await engine.start(parent)
        await until(engine, [first], "waiting")
        fork = await first.fork()
        await until(engine, [first, fork], "waiting", "waiting")
        assert [row.priority for row in await rows(engine)] == [3, 3]


async def test_options_that_make_no_sense_are_refused_where_they_are_given(database_url):
    wrong = {
        "have no slash": (QueueInvalid, {"queue": "a/b"}),
        "queue_key of a queue must be": (QueueInvalid, {"queue_key": "x" * 201}),
        "priority must be a whole number": (DefinitionError, {"priority": 1.5}),
        "delay must be": (DefinitionError, {"delay": timedelta(seconds=-1)}),
        "deadline must": (DefinitionError, {"deadline": "soon"}),
    }

    @workflow(name="wrong")
    async def asks_wrongly(ctx: Context) -> int:
        refused = 0
        for message, (kind, options) in wrong.items():
            for start in (ctx.child, ctx.start):
                with pytest.raises(kind, match=message):
                    start(waits, **options)
                refused += 1
        return refused

    async with Engine.open(database_url, [asks_wrongly, waits]) as engine:
        assert await (await engine.start(asks_wrongly)).result(20) == 10
