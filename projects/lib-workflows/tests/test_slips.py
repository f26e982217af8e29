"""Slips of the pen that Python lets pass: a workflow that makes one is told, instead of quietly doing too little."""

import logging
from collections.abc import Awaitable, Callable

import pytest
from flows import address_changed

from lib_workflows import Context, Engine, StepFailed, step, workflow
from lib_workflows.errors import DeterminismError


@step
async def charge(order: str) -> str:
    return f"receipt of {order}"


@step
def print_it(receipt: str) -> None:
    """In a thread."""


FORGOTTEN: dict[str, Callable[[Context], Awaitable[object]]] = {
    "step charge": lambda ctx: ctx.step(charge, "o-1"),
    "transaction pay": lambda ctx: ctx.transaction(pay),
    "sleep sleep": lambda ctx: ctx.sleep(1),
    "wait_signal address-changed": lambda ctx: ctx.wait_signal(address_changed),
    "view stage": lambda ctx: ctx.set_view("stage", "paid"),
    "gather": lambda ctx: ctx.gather(ctx.step(charge, "o-1")),
}


def pay(connection: object) -> None: ...


@workflow(name="forgets")
async def forgets(ctx: Context, what: str) -> str:
    FORGOTTEN[what](ctx)
    return "done"


async def test_what_is_not_awaited_is_told_of(sqlite_url, caplog, subtests):
    async with Engine.open(sqlite_url, [forgets]) as engine:
        for what in FORGOTTEN:
            caplog.clear()
            assert await (await engine.start(forgets, what)).result(10) == "done"
            with subtests.test(what=what):
                told = [record.message for record in caplog.records if record.levelno == logging.WARNING]
                assert told == [f"{what} was not awaited, so it does not happen; write: await ctx.…"]


@workflow(name="thorough")
async def thorough(ctx: Context) -> list[str]:
    async def first(order: str) -> str:
        async with ctx.timeout(60):
            return await ctx.step(charge, order)

    slow = [ctx.wait_signal(address_changed) for _ in range(3)]
    try:
        await ctx.gather(*slow, ctx.step(fails), limit=4)
    except ValueError:
        _, winner = await ctx.race(ctx.step(charge, "a"), ctx.sleep(60))
        return [str(winner), *await ctx.map(first, ["b", "c"], limit=1)]
    return []


@workflow(name="gives-up")
async def gives_up(ctx: Context) -> None:
    waits = [ctx.wait_signal(address_changed) for _ in range(3)]
    await ctx.gather(ctx.step(fails), *waits, limit=1)  # those whose turn never comes


@step(errors=(ValueError,))
async def fails() -> None:
    raise ValueError("no")


async def test_what_is_awaited_gathered_raced_or_never_has_its_turn_is_not_told_of(sqlite_url, caplog):
    async with Engine.open(sqlite_url, [thorough, gives_up]) as engine:
        assert await (await engine.start(thorough)).result(10) == [f"receipt of {order}" for order in "abc"]
        with pytest.raises(ValueError, match="no"):
            await (await engine.start(gives_up)).result(10)
    assert [record.message for record in caplog.records if "not awaited" in record.message] == []


@workflow(name="calls-plainly")
async def calls_plainly(ctx: Context, sync: bool) -> None:
    if sync:
        print_it("x")
    else:
        await charge("o-1")


@pytest.mark.parametrize(("sync", "name"), [(False, "charge"), (True, "print_it")])
async def test_a_step_that_a_workflow_calls_plainly_fails_the_run(sqlite_url, sync, name):
    async with Engine.open(sqlite_url, [calls_plainly]) as engine:
        with pytest.raises(DeterminismError, match=f"use await ctx.step\\({name}, …\\)"):
            await (await engine.start(calls_plainly, sync)).result(10)


async def test_elsewhere_a_step_is_the_plain_function():
    assert await charge("o-1") == "receipt of o-1"
    print_it("x")


here: dict[str, object] = {}


@step
async def asks_for_a_step() -> str:
    ctx = here["ctx"]
    assert isinstance(ctx, Context)
    return await ctx.step(charge, "o-1")


@workflow(name="lends-its-ctx")
async def lends_its_ctx(ctx: Context) -> str:
    here["ctx"] = ctx
    return await ctx.step(asks_for_a_step)


async def test_a_step_that_asks_a_ctx_is_told_who_may(sqlite_url):
    async with Engine.open(sqlite_url, [lends_its_ctx]) as engine:
        with pytest.raises(StepFailed, match="step of a ctx must be awaited by its workflow, and not in a step"):
            await (await engine.start(lends_its_ctx)).result(10)


@workflow(name="starts-by-the-engine")
async def starts_by_the_engine(ctx: Context) -> None:
    engine = here["engine"]
    assert isinstance(engine, Engine)
    await engine.start(gives_up)


async def test_a_workflow_that_starts_a_run_by_the_engine_is_told_how_to(sqlite_url):
    async with Engine.open(sqlite_url, [starts_by_the_engine, gives_up]) as engine:
        here["engine"] = engine
        with pytest.raises(DeterminismError, match=r"use await ctx.child\(…\) or ctx.start\(…\)"):
            await (await engine.start(starts_by_the_engine)).result(10)
