"""Code that asks its process to end: the attempt or the run fails with that as its reason, and the worker lives."""

import asyncio
import sys

import pytest
from flows import FAST, doubling
from process_steps import exits

from lib_events.testing import wait_until
from lib_workflows import Context, Engine, StepFailed, step, workflow
from lib_workflows.errors import ExitRefused

asked: list[str] = []


async def exit_at_once() -> None:
    asked.append("step")
    sys.exit(3)


async def exit_later() -> None:
    asked.append("step")
    await asyncio.sleep(0)
    raise KeyboardInterrupt


def exit_in_thread() -> None:
    asked.append("step")
    sys.exit("no")


def exit_in_transaction(connection) -> None:
    asked.append("transaction")
    sys.exit(4)


def raise_no_error(connection, name: str) -> None:
    raise {"cancelled": asyncio.CancelledError, "generator": GeneratorExit, "other": BaseException}[name]


async def work() -> None:
    asked.append("work")


STEPS = {
    name: step(name=name, retries=1, backoff=FAST)(function)
    for name, function in {
        "async at once": exit_at_once,
        "async later": exit_later,
        "thread": exit_in_thread,
    }.items()
} | {"process": exits}
worked = step(work)


@step(retries=1, backoff=FAST)
async def undo_work(result: None) -> None:
    await exit_at_once()


@workflow(name="stepping")
async def stepping(ctx: Context, name: str) -> None:
    await ctx.step(STEPS[name])


@workflow(name="transacting")
async def transacting(ctx: Context) -> None:
    await ctx.transaction(exit_in_transaction)


@workflow(name="raising-no-error")
async def raising_no_error(ctx: Context, name: str) -> None:
    await ctx.transaction(raise_no_error, name)


@workflow(name="exiting")
async def exiting(ctx: Context) -> None:
    asked.append("body")
    sys.exit(5)


@workflow(name="exiting-later")
async def exiting_later(ctx: Context) -> None:
    await ctx.step(worked)
    raise KeyboardInterrupt


@workflow(name="exiting-to-undo")
async def exiting_to_undo(ctx: Context) -> None:
    await ctx.step(worked, undo=undo_work)
    raise ValueError("undo that")


WORKFLOWS = [stepping, transacting, raising_no_error, exiting, exiting_later, exiting_to_undo, doubling]


@pytest.fixture(autouse=True)
def nothing_asked():
    asked.clear()


async def lives(engine):
    """The worker still works."""
    assert await (await engine.start(doubling, 4)).result(10) == 8
    assert engine.residence.arrivals.running


@pytest.mark.parametrize("name", STEPS)
async def test_a_step_that_exits_fails_its_attempt_and_is_retried(database_url, name):
    async with Engine.open(database_url, WORKFLOWS) as engine:
        handle = await engine.start(stepping, name)
        with pytest.raises(StepFailed, match=r"ExitRefused.*(SystemExit|KeyboardInterrupt)"):
            await handle.result(10)
        assert len(asked) == (0 if name == "process" else 2)  # a process has a list of its own
        await lives(engine)


async def test_a_transaction_that_exits_fails(database_url):
    async with Engine.open(database_url, WORKFLOWS) as engine:
        with pytest.raises(ExitRefused, match="SystemExit: 4"):
            await (await engine.start(transacting)).result(10)
        assert asked == ["transaction"]
        await lives(engine)


@pytest.mark.parametrize("name", ["cancelled", "generator", "other"])
async def test_a_transaction_that_raises_what_is_no_error_fails_and_the_database_goes_on(database_url, name):
    async with Engine.open(database_url, WORKFLOWS) as engine:
        with pytest.raises(ExitRefused, match=r"CancelledError|GeneratorExit|BaseException"):
            await (await engine.start(raising_no_error, name)).result(10)
        await lives(engine)


@pytest.mark.parametrize("flow", [exiting, exiting_later])
async def test_a_workflow_that_exits_fails(database_url, flow):
    async with Engine.open(database_url, WORKFLOWS) as engine:
        with pytest.raises(ExitRefused, match=r"SystemExit: 5|KeyboardInterrupt"):
            await (await engine.start(flow)).result(10)
        assert len(asked) == 1
        await lives(engine)


async def test_an_undo_that_exits_is_tried_again_like_one_that_fails(database_url):
    async with Engine.open(database_url, WORKFLOWS) as engine:
        await engine.start(exiting_to_undo)
        await wait_until(lambda: asked.count("step") == 2)
        await lives(engine)
