"""A run that is tried again: what failed is done again, with its whole time; what succeeded is kept, as it was seen."""

import asyncio
import contextlib
from datetime import timedelta

import pytest
from flows import Order, address_changed, charge, make_stock, refund, reserve, stock_of
from sqlalchemy import select

from lib_events.database import Connection
from lib_events.testing import wait_until
from lib_workflows import (
    Context,
    Engine,
    Principal,
    RunCancelled,
    RunFailed,
    StepFailed,
    WaitTimeout,
    current_step,
    step,
    workflow,
)
from lib_workflows.authoring.retry import Backoff
from lib_workflows.reading import queries
from lib_workflows.runs import commands, rewind
from lib_workflows.tables import approvals
from lib_workflows.testing import environment

HOUR = timedelta(hours=1)
ANNA = Principal("u1", "anna")


class Trouble:
    """Whether things fail, and what was done."""

    def __init__(self):
        self.begin()

    def begin(self):
        self.lasts, self.did, self.over = True, [], asyncio.Event()


trouble = Trouble()


@pytest.fixture(autouse=True)
def _trouble():
    trouble.begin()


@step
async def try_it(what: str) -> str:
    trouble.did.append(what)
    if trouble.lasts and what.startswith("fails"):
        raise ConnectionError(what)
    if trouble.lasts and what.startswith("hangs"):
        await asyncio.Event().wait()
    return what


@step(total_timeout=HOUR, retries=1_000, backoff=Backoff(timedelta(minutes=5)))
async def within_an_hour(what: str) -> str:
    return await try_it.function(what)


@workflow(name="tries-as-a-child")
async def tries_as_a_child(ctx: Context, what: str) -> str:
    return await ctx.step(try_it, what)


@workflow(name="tries-children")
async def tries_children(ctx: Context) -> list[str]:
    before = await ctx.step(try_it, "before")
    return [before, *await ctx.gather(*(ctx.child(tries_as_a_child, what) for what in ("fails", "hangs", "fails too")))]


async def test_children_that_were_stopped_because_one_failed_are_no_failures_of_their_own(database_url):
    async with Engine.open(database_url, [tries_children, tries_as_a_child]) as engine:
        handle = await engine.start(tries_children)
        with pytest.raises((StepFailed, RunFailed), match="fails"):
            await handle.result(10)
        trouble.lasts = False
        await handle.retry()
        assert await handle.result(10) == ["before", "fails", "hangs", "fails too"]
        assert trouble.did.count("before") == 1


@workflow(name="blocks")
async def blocks(ctx: Context) -> list[str]:
    before = await ctx.step(try_it, "before")
    async with ctx.timeout(HOUR):
        return [before, await ctx.step(try_it, "hangs")]


@workflow(name="waits")
async def waits(ctx: Context) -> list[str]:
    before = await ctx.step(try_it, "before")
    return [before, await ctx.wait_signal(address_changed, timeout=HOUR)]


@workflow(name="asks")
async def asks(ctx: Context) -> list[str]:
    before = await ctx.step(try_it, "before")
    decision = await ctx.approval("ship", text="Ship it?", to="user:u1", timeout=HOUR)
    return [before, decision.by]


@workflow(name="tries-for-an-hour")
async def tries_for_an_hour(ctx: Context) -> list[str]:
    before = await ctx.step(try_it, "before")
    return [before, await ctx.step(within_an_hour, "fails")]


async def answer(engine, run_id, flow):
    """Do what a run that has been retried waits for."""
    if flow is waits:
        await engine.handle(run_id).signal(address_changed, "there")
    elif flow is asks:
        pending = select(approvals.c.id).where(approvals.c.run == run_id, approvals.c.status == "pending")
        (approval,) = await engine.database.read(lambda c: c.scalars(pending).all())
        await engine.database.transact(lambda c: commands.decide(c, approval, approved=True, by=ANNA))


@pytest.mark.parametrize(
    ("flow", "last"),
    [(blocks, "hangs"), (waits, "there"), (asks, "u1"), (tries_for_an_hour, "fails")],
    ids=lambda value: getattr(value, "name", ""),
)
async def test_what_ran_out_of_time_has_its_whole_time_again_also_after_a_crash(database_url, flow, last):
    async with environment(database_url, [flow], lease_seconds=0.3) as env:
        handle = await env.engine.start(flow)
        await wait_until(lambda: until_waiting(env, handle))
        await env.skip(24 * HOUR)
        with pytest.raises((WaitTimeout, StepFailed)):
            await env.result(handle)
        trouble.lasts = False
        await handle.retry()
        await wait_until(lambda: until_waiting(env, handle, "waiting" if flow in {waits, asks} else "completed"))
        await env.skip(HOUR / 2)
        now = env.now
        await env.engine.abandon()
    async with environment(database_url, [flow], lease_seconds=0.3, start=now) as env:
        await answer(env.engine, handle.id, flow)
        assert await env.engine.handle(handle.id, flow).result(10) == ["before", last]
        assert trouble.did.count("before") == 1


async def until_waiting(env, handle, status="waiting"):
    """Whether it waits, or its step hangs."""
    return await handle.status() == status or (status == "waiting" and "hangs" in trouble.did)


@workflow(name="sleeps-beside")
async def sleeps_beside(ctx: Context) -> None:
    await ctx.gather(ctx.sleep(3 * HOUR), ctx.step(try_it, "fails"))


async def test_what_sleeps_beside_does_not_sleep_longer_for_a_retry(database_url):
    async with environment(database_url, [sleeps_beside]) as env:
        handle = await env.engine.start(sleeps_beside)
        begun = env.now
        with pytest.raises(StepFailed):
            await env.result(handle)
        await env.skip(2 * HOUR)
        trouble.lasts = False
        await handle.retry()
        await env.result(handle)
        assert env.now - begun < 4 * HOUR


@workflow(name="tags-itself")
async def tags_itself(ctx: Context) -> str:
    if (ctx.run.tags or {}).get("state") == "new":
        await ctx.step(try_it, "as new")
    await ctx.step(try_it, "taken", undo=give_back)
    await ctx.set_tags({"state": "old"})
    await ctx.set_view("state", "old")
    return await ctx.step(try_it, "fails")


async def give_back(result: str | None, what: str) -> None:
    trouble.did.append(f"not {what}")


async def test_tags_that_are_set_aside_are_not_seen_by_a_retry(database_url):
    async with Engine.open(database_url, [tags_itself]) as engine:
        handle = await engine.start(tags_itself, tags={"state": "new"})
        with pytest.raises(StepFailed):
            await handle.result(10)
        trouble.lasts = False
        await handle.retry()
        assert await handle.result(10) == "fails"
        assert trouble.did == ["as new", "taken", "fails", "not taken", "taken", "fails"]
        assert (await engine.database.read(queries.get_run, handle.id)).tags == {"state": "old"}


@workflow(name="shows-how-far-it-is")
async def shows_how_far_it_is(ctx: Context) -> None:
    await ctx.set_view("state", "beginning")
    await ctx.set_view("state", "begun")
    await ctx.step(try_it, "taken", undo=give_back)
    await ctx.set_view("state", "taken")
    await ctx.set_view("receipt", "of what is given back")
    await ctx.step(try_it, "fails")


def retry_and_look(connection, run_id):
    rewind.retry(connection, run_id)
    return queries.get_views(connection, run_id)


async def test_views_of_what_a_retry_sets_aside_are_what_they_were_before(database_url):
    async with Engine.open(database_url, [shows_how_far_it_is]) as engine:
        handle = await engine.start(shows_how_far_it_is)
        with pytest.raises(StepFailed):
            await handle.result(10)
        assert await engine.database.read(queries.get_views, handle.id) == {
            "state": "taken",
            "receipt": "of what is given back",
        }
        trouble.lasts = False
        assert await engine.database.transact(retry_and_look, handle.id) == {"state": "begun"}
        await handle.result(10)
        assert await handle.view("state") == "taken"


async def test_a_fork_has_the_tags_and_views_of_the_place_where_it_begins(database_url):
    trouble.lasts = False
    async with Engine.open(database_url, [tags_itself]) as engine:
        handle = await engine.start(tags_itself, tags={"state": "new"})
        await handle.result(10)
        before = await handle.fork("2", id="before")
        assert await before.result(10) == "fails"
        assert trouble.did.count("as new") == 1
        after = await handle.fork("5", id="after")
        assert await after.result(10) == "fails"
        assert trouble.did.count("as new") == 1
        assert await after.view("state") == "old"
        assert (await engine.database.read(queries.get_run, "after")).tags == {"state": "old"}


def enter(connection: Connection, what: str) -> None:
    trouble.did.append(what)


@workflow(name="gets-over-it")
async def gets_over_it(ctx: Context) -> str:
    with contextlib.suppress(StepFailed):
        await ctx.step(try_it, "fails")
    await ctx.transaction(enter, "entered")
    return await ctx.wait_signal(address_changed)


async def test_a_cancelled_run_is_retried_from_where_it_was_cancelled_not_from_what_it_had_got_over(database_url):
    async with Engine.open(database_url, [gets_over_it]) as engine:
        handle = await engine.start(gets_over_it)
        await wait_until(lambda: "entered" in trouble.did)
        await handle.cancel()
        with pytest.raises(RunCancelled):
            await handle.result(10)
        await handle.retry()
        await handle.signal(address_changed, "there")
        assert await handle.result(10) == "there"
        assert trouble.did == ["fails", "entered"]


@step
async def stops_slowly() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        if trouble.lasts:
            await trouble.over.wait()


@workflow(name="cancelled-as-it-fails")
async def cancelled_as_it_fails(ctx: Context) -> str:
    await ctx.gather(ctx.step(try_it, "fails"), ctx.race(ctx.step(stops_slowly), ctx.wait_signal(address_changed)))
    return "over it"


async def test_what_was_cancelled_as_it_failed_is_retried_from_the_failure(database_url):
    async with Engine.open(database_url, [cancelled_as_it_fails]) as engine:
        handle = await engine.start(cancelled_as_it_fails)
        await wait_until(lambda: engine.database.read(lambda c: queries.get_history(c, handle.id)))
        await handle.cancel()
        await wait_until(lambda: engine.database.read(lambda c: len(queries.get_history(c, handle.id)) == 2))
        trouble.over.set()
        with pytest.raises(RunCancelled):
            await handle.result(10)
        trouble.lasts = False
        await handle.retry()
        await handle.signal(address_changed, "there")
        assert await handle.result(10) == "over it"


@workflow(name="fails-by-itself")
async def fails_by_itself(ctx: Context, first: str) -> str:
    with contextlib.suppress(StepFailed, WaitTimeout):
        await (ctx.step(try_it, "fails") if first == "step" else ctx.wait_signal(address_changed, timeout=HOUR))
    if first == "block":
        with contextlib.suppress(WaitTimeout):
            async with ctx.timeout(HOUR):
                await ctx.sleep(2 * HOUR)
    await ctx.transaction(reserve, ctx.run_id, 1)
    if trouble.lasts:
        raise LookupError("a mistake in the function")
    return await ctx.step(try_it, "done")


@pytest.mark.parametrize("first", ["step", "wait", "block"])
async def test_a_transaction_after_what_a_run_has_got_over_is_not_done_again(database_url, first):
    async with environment(database_url, [fails_by_itself]) as env:
        await env.engine.database.transact(make_stock)
        handle = await env.engine.start(fails_by_itself, first, id="r")
        for _ in range(2):  # also when it fails by itself again
            with pytest.raises(LookupError):
                await env.result(handle)
            await handle.retry()
        with pytest.raises(LookupError):
            await env.result(handle)
        trouble.lasts = False
        await handle.retry()
        assert await env.result(handle) == "done"
        assert await env.engine.database.read(stock_of, "r") == [-1]


@workflow(name="tells-of-its-failure")
async def tells_of_its_failure(ctx: Context) -> str:
    try:
        return await ctx.step(try_it, "fails")
    except StepFailed as error:
        await ctx.transaction(reserve, ctx.run_id, 1)
        raise LookupError("not to be had") from error


async def test_what_is_done_about_a_failure_does_not_make_a_run_get_over_it(database_url):
    async with environment(database_url, [tells_of_its_failure]) as env:
        await env.engine.database.transact(make_stock)
        handle = await env.engine.start(tells_of_its_failure, id="r")
        with pytest.raises(LookupError):
            await env.result(handle)
        trouble.lasts = False
        await handle.retry()
        assert await env.result(handle) == "fails"


@workflow(name="listens")
async def listens(ctx: Context) -> list[str]:
    await ctx.step(charge, Order(id=ctx.run_id, amount=1), undo=refund)
    heard = [await ctx.wait_signal(address_changed) for _ in range(2)]
    await ctx.step(try_it, "fails")
    return [*heard, await ctx.wait_signal(address_changed)]


async def test_signals_that_were_taken_by_what_is_done_again_are_there_again_in_their_order(database_url):
    async with environment(database_url, [listens]) as env:
        handle = await env.engine.start(listens)
        for address in "ABC":
            await handle.signal(address_changed, address)
        for _ in range(2):
            with pytest.raises(StepFailed):
                await env.result(handle)
            await handle.retry()
        with pytest.raises(StepFailed):
            await env.result(handle)
        trouble.lasts = False
        await handle.retry()
        assert await env.result(handle) == ["A", "B", "C"]


async def test_a_fork_that_is_retried_hears_again_what_it_has_of_the_run_it_was_made_of(database_url):
    async with environment(database_url, [listens]) as env:
        handle = await env.engine.start(listens)
        for address in "ABC":
            await handle.signal(address_changed, address)
        with pytest.raises(StepFailed):
            await env.result(handle)
        forked = await handle.fork("4")
        with pytest.raises(StepFailed):
            await env.result(forked)
        trouble.lasts = False
        await forked.retry()
        await forked.signal(address_changed, "D")
        assert await env.result(forked) == ["A", "B", "D"]


@step
async def pay(amount: int) -> int:
    trouble.did.append(current_step().idempotency_key)
    return amount


@step
async def pay_back(_paid: int | None, amount: int) -> None:
    trouble.did.append(current_step().idempotency_key)


@workflow(name="pays")
async def pays(ctx: Context) -> int:
    paid = await ctx.step(pay, 10, undo=pay_back)
    await ctx.step(try_it, "fails")
    return paid


async def test_what_was_undone_is_done_and_undone_again_under_other_keys(database_url):
    """By the key of before, whoever takes the money would say that it was taken, and it was given back."""
    async with Engine.open(database_url, [pays]) as engine:
        handle = await engine.start(pays, id="buys")
        for _ in range(2):
            with pytest.raises(StepFailed):
                await handle.result(10)
            await engine.database.transact(rewind.retry, handle.id)
        with pytest.raises(StepFailed):
            await handle.result(10)
    lives = [["buys:1", "fails", "buys:1/undo"]]
    lives += [[f"buys:1~{n}", "fails", f"buys:1/undo~{n}"] for n in (1, 2)]
    assert trouble.did == [what for life in lives for what in life]
