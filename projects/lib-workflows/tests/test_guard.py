"""What Python does beside a workflow when it drops what the workflow has left: nothing that a replay would not do."""

import asyncio
import gc
import sys
from contextlib import aclosing

import pytest
from flows import calls, double

from lib_workflows import Context, Engine, workflow
from lib_workflows.testing import environment
from lib_workflows.workers.limits import Limits


async def numbers(ctx):
    try:
        for number in range(9):
            yield await ctx.step(double, number)
    finally:
        calls.append(("cleanup",))
        await ctx.step(double, 100)
        calls.append(("cleaned up",))


@workflow(name="leaves")
async def leaves(ctx: Context) -> None:
    """Leave an async generator before its end."""
    async for number in numbers(ctx):
        if number == 2:
            break
    calls.append(("left",))
    await ctx.sleep(0.01)


@workflow(name="closes")
async def closes(ctx: Context) -> None:
    """The same as it should be done."""
    async with aclosing(numbers(ctx)) as found:
        async for number in found:
            if number == 2:
                break
    calls.append(("left",))


@workflow(name="rests-within")
async def rests_within(ctx: Context) -> None:
    """Leave memory between two numbers."""
    async for number in numbers(ctx):
        if number == 4:
            break
        try:
            await ctx.sleep(60)
        finally:
            try:
                await ctx.step(double, 50)
            finally:
                await ctx.step(double, 60)
                await ctx.step(double, 70)


@pytest.fixture
def cries(caplog, monkeypatch):
    """What Python and asyncio complain of."""
    heard = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: heard.append(str(found.exc_value)))
    yield heard
    gc.collect()
    heard += [record.getMessage() for record in caplog.records if record.name == "asyncio"]
    assert heard == []


async def test_a_generator_that_is_left_is_closed_there_and_then_and_says_what_does_not_happen(
    sqlite_url, cries, caplog
):
    async with Engine.open(sqlite_url, [leaves]) as engine:
        await (await engine.start(leaves)).result(10)
    assert calls == [("double", 0), ("double", 1), ("cleanup",), ("left",)]
    assert "numbers was left before its end" in caplog.text


async def test_a_generator_that_is_closed_cleans_up(sqlite_url, cries):
    async with Engine.open(sqlite_url, [closes]) as engine:
        await (await engine.start(closes)).result(10)
    assert calls[2:] == [("cleanup",), ("double", 100), ("cleaned up",), ("left",)]


async def test_a_function_that_leaves_memory_amid_its_cleanups_does_not_cry(sqlite_url, cries, caplog):
    async with environment(sqlite_url, [rests_within], limits=Limits(idle_seconds=0.0)) as env:
        await env.result(await env.engine.start(rests_within))
        await asyncio.sleep(0)
    assert [call for call in calls if call[0] == "double"] == [("double", n) for n in (0, 50, 60, 70, 1, 50, 60, 70, 2)]
    assert caplog.text.count("was left before its end") == 1  # by its `break`
