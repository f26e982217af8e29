"""The tags a run is found by: given at its start, changed by its workflow, the same after every replay."""

import asyncio
import contextlib

import pytest
from flows import address_changed

from lib_events.testing import wait_until
from lib_workflows import Context, Engine, step, workflow
from lib_workflows.errors import TagsInvalid
from lib_workflows.reading import queries


async def tags_of(engine, run_id):
    return (await engine.database.read(queries.get_run, run_id)).tags


async def waits(handle):
    async def rests():
        return await handle.status() == "waiting"

    await wait_until(rests)


@workflow(name="tagging")
async def tagging(ctx: Context) -> dict[str, str]:
    await ctx.set_tags({"state": "packed", "draft": None})
    await ctx.wait_signal(address_changed)
    await ctx.set_tags({"state": "shipped"})
    return dict(ctx.run.tags or {})


async def test_a_workflow_changes_the_tags_it_is_found_by(database_url):
    async def tagged(tag):
        found = await engine.database.read(queries.list_runs, queries.RunFilter(tags=[tag]))
        return [run.id for run in found.items]

    async with Engine.open(database_url, [tagging]) as engine:
        handle = await engine.start(tagging, id="t", tags={"customer": "42", "draft": "yes"})
        await waits(handle)
        assert (await tagged("state:packed"), await tagged("customer:42"), await tagged("draft")) == (["t"], ["t"], [])
    async with Engine.open(database_url, [tagging]) as engine:  # replayed, it sees what it began with
        handle = engine.handle("t", tagging)
        await handle.signal(address_changed, "on")
        assert await handle.result(10) == {"customer": "42", "draft": "yes"}
        assert (await tagged("state:shipped"), await tagged("state:packed")) == (["t"], [])


async def test_a_run_is_found_by_new_tags_while_its_next_step_is_under_way(sqlite_url):
    go_on = asyncio.Event()

    @step
    async def packs() -> None:
        await go_on.wait()

    @workflow(name="packing")
    async def packing(ctx: Context) -> None:
        await ctx.set_tags({"state": "packed"})
        await ctx.step(packs)

    async with Engine.open(sqlite_url, [packing]) as engine:
        handle = await engine.start(packing)
        await wait_until(lambda: tags_of(engine, handle.id))
        assert await handle.status() == "running"
        go_on.set()
        await handle.result(10)


async def test_tags_that_cannot_be_are_refused(sqlite_url, subtests):
    @workflow(name="overtagging")
    async def overtagging(ctx: Context) -> None:
        await ctx.set_tags({f"tag{number}": "x" for number in range(65)})

    async with Engine.open(sqlite_url, [overtagging]) as engine:
        for tags, told in (
            ({"a:b": "c"}, "without a colon"),
            ({"": "c"}, "1 to 128"),
            ({"a": "x" * 1025}, "at most 1024"),
        ):
            with subtests.test(told=told), pytest.raises(TagsInvalid, match=told):
                await engine.start(overtagging, tags=tags)
        with pytest.raises(TagsInvalid, match="at most 64 tags, got 65"):
            await (await engine.start(overtagging)).result(10)


@workflow(name="moving-tags")
async def moving_tags(ctx: Context) -> dict[str, str]:
    await ctx.set_tags({"state": "packed"})
    await ctx.set_tags({"state": None, "place": "harbour"})
    with contextlib.suppress(TagsInvalid):
        await ctx.set_tags({"one": "too many"})
    await ctx.wait_signal(address_changed)
    return dict(ctx.run.tags)


@workflow(name="refused-tags")
async def refused_tags(ctx: Context) -> dict[str, str]:
    with contextlib.suppress(TagsInvalid):
        await ctx.set_tags({"one": "too many", "another": "too"})
    await ctx.wait_signal(address_changed)
    return dict(ctx.run.tags)


@pytest.mark.parametrize("tagging", [moving_tags, refused_tags], ids=lambda tagging: tagging.name)
async def test_a_run_with_as_many_tags_as_can_be_comes_back_as_it_was(sqlite_url, tagging):
    given = {f"tag{number}": "x" for number in range(63)}
    async with Engine.open(sqlite_url, [tagging]) as engine:
        handle = await engine.start(tagging, tags=given)
        await waits(handle)
        tags = await tags_of(engine, handle.id)
    async with Engine.open(sqlite_url, [tagging]) as engine:
        handle = engine.handle(handle.id, tagging)
        await handle.signal(address_changed, "Elm Street 1")
        assert await handle.result(10) == given
        assert await tags_of(engine, handle.id) == tags
