"""Many come back to one: whatever happens to children and branches, who waits for them hears of it."""

import asyncio

import pytest
from flows import address_changed

from lib_events.testing import wait_until
from lib_workflows import Context, Engine, RunCancelled, RunFailed, StepFailed, queries, step, workflow


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
