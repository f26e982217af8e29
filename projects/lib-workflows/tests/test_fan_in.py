"""Many come back to one: whatever happens to children and branches, who waits for them hears of it."""

import asyncio
import contextlib
from collections import Counter

import pytest
from flows import address_changed
from pydantic import BaseModel, Field
from sqlalchemy import update

from lib_events.adapters import sqlite
from lib_events.testing import wait_until
from lib_workflows import Context, Engine, RunCancelled, RunFailed, StepFailed, Workflow, step, workflow
from lib_workflows.errors import DefinitionError, PayloadInvalid
from lib_workflows.reading import queries
from lib_workflows.runs import commands
from lib_workflows.runs.record import Message, child_run_id
from lib_workflows.tables import history, runs
from lib_workflows.testing import export_history, replay_history
from lib_workflows.workers import kinship


@step
async def fails() -> str:
    raise ValueError("broken")


@workflow(name="part")
async def part(ctx: Context, kind: str) -> str:
    if kind == "fails":
        await ctx.step(fails)
    if kind == "waits":
        return await ctx.wait_signal(address_changed)
    return kind


@workflow(name="whole")
async def whole(ctx: Context, kinds: list[str]) -> list[str]:
    return await ctx.gather(*(ctx.child(part, kind) for kind in kinds), limit=3)


@workflow(name="whole-that-bears")
async def whole_that_bears(ctx: Context, kinds: list[str]) -> list[str]:
    async def one(kind: str) -> str:
        try:
            return await ctx.child(part, kind)
        except (RunFailed, StepFailed, RunCancelled) as error:
            return type(error).__name__

    return await ctx.map(one, kinds)


WORKFLOWS = [whole, whole_that_bears, part]


async def children_of(engine, run_id):
    page = await engine.database.read(lambda c: queries.list_runs(c, queries.RunFilter(parent=run_id)))
    return {child.id: child.status for child in page.items}


async def those_that_wait(engine, run_id):
    return [child for child, status in (await children_of(engine, run_id)).items() if status == "waiting"]


async def test_a_fan_in_comes_however_its_children_end(database_url, subtests):
    async with Engine.open(database_url, WORKFLOWS) as engine:
        with subtests.test("there are none"):
            assert await (await engine.start(whole, [])).result(10) == []
        with subtests.test("one fails: the others are cancelled and awaited"):
            handle = await engine.start(whole, ["waits", "fails", "waits", "returns"])
            with pytest.raises(StepFailed, match="broken"):
                await handle.result(10)
            assert sorted((await children_of(engine, handle.id)).values()) == ["cancelled", "cancelled", "failed"]
        with subtests.test("one is cancelled by somebody else"):
            handle = await engine.start(whole, ["waits", "returns"])
            (child,) = await wait_until(lambda: those_that_wait(engine, handle.id))
            await engine.handle(child).cancel("enough")
            with pytest.raises(RunCancelled, match="enough"):
                await handle.result(10)
        with subtests.test("failures are borne"):
            handle = await engine.start(whole_that_bears, ["fails", "returns", "waits"])
            (child,) = await wait_until(lambda: those_that_wait(engine, handle.id))
            await engine.handle(child).cancel()
            assert await handle.result(10) == ["StepFailed", "returns", "RunCancelled"]


async def test_a_fan_in_comes_after_its_children_ended_while_nobody_was_there(database_url):
    async with Engine.open(database_url, WORKFLOWS) as engine:
        handle = await engine.start(whole, ["waits", "waits", "returns"], id="fan-in")
        await wait_until(lambda: two_wait(engine))
    async with Engine.open(database_url, [part]) as engine:  # who is there cannot run the parent
        for child in await those_that_wait(engine, "fan-in"):
            await engine.handle(child).signal(address_changed, "meanwhile")
            assert await engine.handle(child, part).result(10) == "meanwhile"
    async with Engine.open(database_url, WORKFLOWS) as engine:
        assert await engine.handle(handle.id, whole).result(10) == ["meanwhile", "meanwhile", "returns"]


async def two_wait(engine):
    return len(await those_that_wait(engine, "fan-in")) == 2


async def test_a_branch_that_fails_or_is_cancelled_gives_back_its_place(database_url):
    """With one place for four: one fails, one runs out of time, and those behind it come all the same."""
    came = []

    @step
    async def comes(number: int) -> int:
        came.append(number)
        if number == 0:
            raise ValueError("broken")
        if number == 1:
            await asyncio.Event().wait()
        return number

    @workflow(name="one-place")
    async def one_place(ctx: Context) -> list[int]:
        async def one(number: int) -> int:
            try:
                async with ctx.timeout(0.05 if number == 1 else 60):
                    return await ctx.step(comes, number)
            except (StepFailed, TimeoutError):
                return -number

        return await ctx.map(one, range(4), limit=1)

    async with Engine.open(database_url, [one_place]) as engine:
        assert await (await engine.start(one_place)).result(10) == [0, -1, 2, 3]
    assert came == [0, 1, 2, 3]


class Count(BaseModel):
    of: int = Field(ge=0)


@workflow(name="gives-what-nobody-reads")
async def gives_what_nobody_reads(ctx: Context) -> Count:
    return Count.model_construct(of=-1)  # written as it is, and refused by whoever reads it


@workflow(name="reads-it")
async def reads_it(ctx: Context) -> list[str]:
    async def one(part: Workflow) -> str:
        try:
            return str(await ctx.child(part))
        except PayloadInvalid as error:
            return type(error).__name__

    return await ctx.map(one, [gives_what_nobody_reads, gives_what_nobody_reads])


async def test_a_result_that_nobody_can_read_is_an_error_of_the_child_and_the_parent_hears_of_it(database_url):
    async with Engine.open(database_url, [reads_it, gives_what_nobody_reads]) as engine:
        handle = await engine.start(reads_it)
        assert await handle.result(10) == ["PayloadInvalid", "PayloadInvalid"]
        assert replay_history(reads_it, await export_history(engine, handle.id)) == ["PayloadInvalid"] * 2


@workflow(name="whole-at-once")
async def whole_at_once(ctx: Context, count: int) -> list[str]:
    return await ctx.map(lambda _: ctx.child(part, "waits"), range(count))


async def test_children_of_a_cancelled_run_are_cancelled_a_few_at_a_time(database_url):
    """Each is a transaction: all at once they would leave nobody else a connection, and the loop no time."""
    count, at_once = 5 * kinship.CANCELLED_AT_ONCE, Counter()
    async with Engine.open(database_url, [whole_at_once, part]) as engine:
        transact = engine.database.transact

        async def counting(function, *args, fence=None):
            at_once["now"] += function is commands.cancel
            at_once["most"] = max(at_once["most"], at_once["now"])
            try:
                return await transact(function, *args, fence=fence)
            finally:
                at_once["now"] -= function is commands.cancel

        handle = await engine.start(whole_at_once, count)
        await wait_until(lambda: engine.database.read(lambda c: queries.count_runs(c).get("waiting") == count + 1))
        await handle.cancel()
        engine.database.transact = counting
        with pytest.raises(RunCancelled):
            await handle.result(20)
        assert at_once["most"] == kinship.CANCELLED_AT_ONCE
        assert await engine.database.read(queries.count_runs) == {"cancelled": count + 1}


@workflow(name="keeps-a-secret")
async def keeps_a_secret(ctx: Context) -> str:
    return await ctx.child(part, "secret")


async def test_nobody_takes_the_id_of_a_child_before_it_is_started(database_url):
    """It follows from its parent's, which others may know: the parent waited for ever, or they saw what the child
    gave."""
    taken = child_run_id("nightly", "1")
    async with Engine.open(database_url, [keeps_a_secret, part]) as engine:
        with contextlib.suppress(DefinitionError):
            await engine.start(part, "waits", id=taken)
        parent = await engine.start(keeps_a_secret, id="nightly")
        assert await parent.result(10) == "secret"
        for choose in (lambda: engine.start(part, "waits", id=taken), lambda: parent.fork(id=taken)):
            with pytest.raises(DefinitionError, match="must not begin with started~"):
                await choose()


async def test_a_child_that_was_started_before_ids_had_a_prefix_is_still_that_of_its_parent(database_url):
    async with Engine.open(database_url, [whole, part]) as engine:
        await engine.start(whole, ["waits"], id="parent")
        (child,) = await wait_until(lambda: those_that_wait(engine, "parent"))
    async with Engine.open(database_url, []) as engine:
        await engine.database.transact(call_as_before, child)
    async with Engine.open(database_url, [whole, part]) as engine:
        await engine.handle(child.removeprefix("started~")).signal(address_changed, "here")
        assert await engine.handle("parent", whole).result(10) == ["here"]
        assert len(await children_of(engine, "parent")) == 1


def call_as_before(connection, child):
    for table, column in ((runs, runs.c.id), (history, history.c.run)):
        connection.execute(update(table).where(column == child).values({column.name: child.removeprefix("started~")}))


@workflow(name="whole-of-one-that-waits")
async def whole_of_one_that_waits(ctx: Context) -> str:
    return await ctx.child(part, "waits")


async def test_a_childs_end_is_heard_however_quickly_it_is_saved(sqlite_url, monkeypatch):
    monkeypatch.setattr(sqlite, "QUICK_SECONDS", 60.0)  # by the loop itself, before anybody is told
    async with Engine.open(sqlite_url, WORKFLOWS) as engine:
        assert await (await engine.start(whole, ["does"])).result(10) == ["does"]


async def test_a_childs_end_reaches_a_parent_that_is_just_being_loaded(sqlite_url):
    async with Engine.open(sqlite_url, [whole_of_one_that_waits, part]) as engine:
        handle = await engine.start(whole_of_one_that_waits)
        (child,) = await wait_until(lambda: children_of(engine, handle.id))
        await wait_until(lambda: engine.residence.is_quiet)
        engine.residence._evict(engine.residence.executors[handle.id])
        await wait_until(lambda: handle.id not in engine.residence.executors)
        arrivals = engine.residence.arrivals
        read = arrivals._read

        async def read_before_the_child_ends(run_ids, claimed):
            found = await read(run_ids, claimed)
            engine.residence.executors[child].hear([Message(1, "signal", "address-changed", '"here"', None)], 1)
            await wait_until(lambda: arrivals.loading[handle.id])
            return found

        arrivals._read = read_before_the_child_ends
        await engine.database.transact(commands.wake, handle.id)
        assert await handle.result(10) == "here"
