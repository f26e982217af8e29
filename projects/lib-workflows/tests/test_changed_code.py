"""Code that has changed while a run waits: what came for the old code is not taken for an answer to the new."""

import asyncio
from datetime import timedelta

import pytest
import sqlalchemy as sa
from flows import doubling
from pydantic import BaseModel

from lib_events.testing import wait_until
from lib_workflows import Context, Engine, EventType, Principal, Signal, current_step, step, workflow
from lib_workflows.authoring.retry import Backoff
from lib_workflows.errors import Nondeterministic, RunCancelled
from lib_workflows.runs import commands
from lib_workflows.tables import approvals, attempts, messages, runs

Paid = EventType("changed.paid", dict)
Shipped = EventType("changed.shipped", dict)
count = Signal("count", int)
HOUR = timedelta(hours=1)


@workflow(name="counting")
async def counting(ctx: Context) -> int:
    """Answer with what it is told."""
    return await ctx.wait_signal(count)


@workflow(name="parent")
async def asks_a_child(ctx: Context) -> int:
    """Ask a child."""
    return await ctx.child(counting)


@workflow(name="parent")
async def asks_another_child(ctx: Context) -> int:
    """Ask another child at the same place."""
    return await ctx.child(doubling, 1)


@workflow(name="parent")
async def asks_no_child(ctx: Context) -> int:
    """Ask nobody."""
    return 0


@pytest.mark.parametrize("changed", [asks_another_child, asks_no_child])
async def test_a_child_does_not_answer_for_another_one(database_url, changed):
    async with Engine.open(database_url, [asks_a_child, counting]) as engine:
        await engine.start(asks_a_child, id="parent")
        child = await wait_until(lambda: child_of(engine, "parent"))
    async with Engine.open(database_url, [changed, counting, doubling]) as engine:
        await engine.handle(child, counting).signal(count, 7)
        with pytest.raises(Nondeterministic, match=r"child 'counting' \(started\)"):
            await engine.handle("parent", changed).result(10)
    async with Engine.open(database_url, [asks_a_child, counting]) as engine:
        parent = engine.handle("parent", asks_a_child)
        await parent.retry()
        assert await parent.result(10) == 7  # nothing is lost


async def test_a_parked_run_that_is_retried_and_then_cancelled_before_anybody_takes_it_cancels_its_child(database_url):
    """It has no row of its own yet: all that it has done is to start a child."""
    async with Engine.open(database_url, [asks_a_child, counting]) as engine:
        await engine.start(asks_a_child, id="parent")
        child = await wait_until(lambda: child_of(engine, "parent"))
    async with Engine.open(database_url, [asks_no_child]) as engine:
        await engine.database.transact(commands.wake, "parent")
        with pytest.raises(Nondeterministic):
            await engine.handle("parent", asks_no_child).result(10)
    async with Engine.open(database_url, [], works=False) as engine:
        await engine.handle("parent").retry()
        await engine.handle("parent").cancel()
    async with Engine.open(database_url, [asks_a_child, counting]) as engine:
        with pytest.raises(RunCancelled):
            await engine.handle("parent", asks_a_child).result(10)
        with pytest.raises(RunCancelled):
            await engine.handle(child, counting).result(10)


async def child_of(engine, parent):
    return await engine.database.read(lambda c: c.scalar(sa.select(runs.c.id).where(runs.c.parent == parent)))


@workflow(name="asks")
async def asks_for_pencils(ctx: Context) -> str:
    """Ask for little."""
    return f"pencils: {(await ctx.approval('pencils', text='May I?', to='role:member')).approved}"


@workflow(name="asks")
async def asks_for_everything(ctx: Context) -> str:
    """Ask for much at the same place."""
    return f"everything: {(await ctx.approval('everything', text='May I?', to='role:admin')).approved}"


class Parcel(BaseModel):
    weight: int


class HeavyParcel(BaseModel):
    weight: int
    lift: str


labels: list[str] = []


@step
async def prints_a_label(weight: int) -> None:
    labels.append("printing")
    await asyncio.Event().wait()


async def tears_it_up(label: None, weight: int) -> None:
    labels.append("torn")


@workflow(name="sends")
async def sends(ctx: Context, parcel: Parcel) -> None:
    """Do something that is to be undone."""
    await ctx.step(prints_a_label, parcel.weight, undo=tears_it_up)


@workflow(name="sends")
async def sends_heavy(ctx: Context, parcel: HeavyParcel) -> None:
    """The same, with an input that what has begun does not have."""
    await ctx.step(prints_a_label, parcel.weight, undo=tears_it_up)


async def test_a_run_whose_input_does_not_fit_any_more_is_parked_and_undoes_what_was_under_way(database_url):
    """It has no row yet: that its step has begun is nowhere to be read."""
    labels.clear()
    async with Engine.open(database_url, [sends], lease_seconds=0.3) as engine:
        await engine.start(sends, Parcel(weight=1), id="sends")
        await wait_until(lambda: labels)
        await engine.abandon()
    async with Engine.open(database_url, [sends_heavy], lease_seconds=0.3) as engine:
        with pytest.raises(Nondeterministic, match="the input that it began with"):
            await engine.handle("sends", sends_heavy).result(10)
    async with Engine.open(database_url, [sends], lease_seconds=0.3) as engine:
        handle = engine.handle("sends", sends)
        await handle.retry()
        await wait_until(lambda: len(labels) > 1)
        await handle.cancel()
        with pytest.raises(RunCancelled):
            await handle.result(10)
    assert labels == ["printing", "printing", "torn"]


@pytest.mark.parametrize("decided", ["before the change", "after it"])
async def test_a_decision_on_one_question_does_not_answer_another(database_url, decided):
    async with Engine.open(database_url, [asks_for_pencils]) as engine:
        await engine.start(asks_for_pencils, id="asks")
        asked = await wait_until(lambda: engine.database.read(lambda c: c.scalar(sa.select(approvals.c.id))))
    if decided == "before the change":
        async with Engine.open(database_url, []) as engine:
            await decide(engine, asked)
    async with Engine.open(database_url, [asks_for_everything]) as engine:
        if decided == "after it":
            await decide(engine, asked)
        with pytest.raises(Nondeterministic, match=r"approval 'pencils' \(asked\)"):
            await engine.handle("asks", asks_for_everything).result(10)
    async with Engine.open(database_url, [asks_for_pencils]) as engine:
        asks = engine.handle("asks", asks_for_pencils)
        await asks.retry()
        assert await asks.result(10) == "pencils: True"


async def decide(engine, approval):
    await engine.database.transact(lambda c: commands.decide(c, approval, approved=True, by=Principal("u1")))


@workflow(name="waits")
async def waits_for_money(ctx: Context) -> dict:
    """Wait for one thing."""
    return await ctx.wait_event(Paid)


@workflow(name="waits")
async def waits_for_goods(ctx: Context) -> dict:
    """Wait for another at the same place."""
    return await ctx.wait_event(Shipped)


@workflow(name="tells")
async def tells(ctx: Context) -> None:
    """Tell of both."""
    await ctx.publish(Paid, {"what": "money"})
    await ctx.publish(Shipped, {"what": "goods"})


async def test_an_event_that_came_for_the_old_code_is_not_taken_for_what_the_new_code_awaits(postgresql_url):
    async with Engine.open(postgresql_url, [waits_for_money, tells]) as engine:
        await engine.start(waits_for_money, id="waits")
        waits = sa.text("SELECT count(*) FROM event_waits")
        await wait_until(lambda: engine.database.read(lambda c: c.scalar(waits)))
    async with Engine.open(postgresql_url, [tells]) as engine:
        await (await engine.start(tells)).result(10)
        came = sa.select(sa.func.count()).select_from(messages)
        await wait_until(lambda: engine.database.read(lambda c: c.scalar(came)))
    async with Engine.open(postgresql_url, [waits_for_goods]) as engine:
        assert await engine.handle("waits", waits_for_goods).result(10) == {"what": "goods"}


heard: list[tuple[int, object]] = []  # what the step that came instead knew of attempts before it


@step(retries=5, backoff=Backoff(initial=HOUR, maximum=HOUR))
async def tries_in_vain() -> None:
    current_step().heartbeat("half of it")
    raise ConnectionError("again in an hour")


@step(retries=5)
async def tries_instead() -> str:
    heard.append((current_step().attempt, current_step().last_progress))
    return "well"


@workflow(name="trying")
async def trying(ctx: Context) -> None:
    await ctx.step(tries_in_vain)


@workflow(name="trying")
async def trying_instead(ctx: Context) -> str:
    return await ctx.step(tries_instead)


async def test_attempts_and_progress_of_one_step_are_not_those_of_another_at_its_place(database_url):
    heard.clear()
    async with Engine.open(database_url, [trying]) as engine:
        await engine.start(trying, id="trying")
        await wait_until(lambda: has_tried(engine))
    async with Engine.open(database_url, [trying_instead]) as engine:
        await engine.handle("trying").signal(count, 1)  # else it comes back in an hour
        assert await engine.handle("trying", trying_instead).result(10) == "well"
        assert heard == [(1, None)]
        assert not await has_tried(engine)


async def has_tried(engine):
    tried = sa.select(attempts.c.run).where(attempts.c.run == "trying")
    return await engine.database.read(lambda c: c.scalar(tried)) is not None


@step
async def sets_out() -> None: ...


@step
async def sets_out_otherwise() -> None: ...


@workflow(name="patched-while-parked")
async def before_the_patch(ctx: Context) -> str:
    await ctx.step(sets_out)
    return f"old way: {await ctx.child(counting)}"


@workflow(name="patched-while-parked")
async def that_does_not_fit(ctx: Context) -> str:
    await ctx.step(sets_out_otherwise)
    return "neither"


@workflow(name="patched-while-parked")
async def with_the_patch(ctx: Context) -> str:
    await ctx.step(sets_out)
    return "new way" if ctx.patched("new way") else f"old way: {await ctx.child(counting)}"


async def test_a_parked_run_that_is_retried_takes_no_patch_where_the_old_code_has_been(database_url):
    """Behind its last row the old code has started a child."""
    async with Engine.open(database_url, [before_the_patch, counting]) as engine:
        await engine.start(before_the_patch, id="parent")
        child = await wait_until(lambda: child_of(engine, "parent"))
    async with Engine.open(database_url, [that_does_not_fit]) as engine:
        await engine.database.transact(commands.wake, "parent")
        with pytest.raises(Nondeterministic):
            await engine.handle("parent", that_does_not_fit).result(10)
    async with Engine.open(database_url, [with_the_patch, counting]) as engine:
        parent = engine.handle("parent", with_the_patch)
        await parent.retry()
        await engine.handle(child, counting).signal(count, 7)
        assert await parent.result(10) == "old way: 7"
