"""A fork goes on where another run was: what it has of that run's past is as that run saw it, the rest is its own."""

import pytest
from flows import (
    Order,
    OrderShipped,
    PaymentCaptured,
    address_changed,
    calls,
    double,
    make_stock,
    release,
    reserve,
    stock_of,
)
from sqlalchemy import select

from lib_events.event import Event
from lib_events.tables import events
from lib_events.testing import wait_until
from lib_workflows import Context, Principal, RunCancelled, StepFailed, step, workflow
from lib_workflows.reading import queries
from lib_workflows.testing import environment, export_history, replay_history

FLIPS = 12


class Luck:
    lasts = True


@step
async def needs_luck() -> None:
    if not Luck.lasts:
        raise ConnectionError("out of luck")


@pytest.fixture(autouse=True)
def _luck():
    Luck.lasts = True


@workflow(name="flips-coins")
async def flip_coins(ctx: Context) -> list[str]:
    """Do one thing or the other, as chance and time of day will have it."""
    seen = []
    for number in range(FLIPS):
        if ctx.random() < 0.5:
            await ctx.step(double, number)
        elif ctx.now().minute % 2:
            await ctx.set_view("odd", number)
        else:
            await ctx.set_tags({"even": str(number)})
        seen.append(str(ctx.uuid()))
        await ctx.sleep(60)
    await ctx.step(needs_luck)
    return seen


async def shape_of(env, run):
    rows = await env.engine.database.read(queries.get_history, run.id)
    return [(row.kind, row.name) for row in rows if row.kind != "fork"]


async def test_a_fork_repeats_the_chance_and_the_time_of_the_run_it_was_made_of_and_then_has_its_own(database_url):
    async with environment(database_url, [flip_coins]) as env:
        first = await env.engine.start(flip_coins)
        seen = await env.result(first)
        shape = await shape_of(env, first)
        forked = await first.fork("10")  # behind the sleep of the fifth
        found = await env.result(forked)
        assert found[:5] == seen[:5]
        assert not {*found[5:]} & {*seen}
        assert (await shape_of(env, forked))[:9] == shape[:9]


async def test_a_fork_of_a_fork_repeats_each_of_both_where_it_was(database_url):
    async with environment(database_url, [flip_coins]) as env:
        first = await env.engine.start(flip_coins)
        seen = [await env.result(first)]
        second = await first.fork("10")
        seen.append(await env.result(second))
        for operation, expected in [("20", seen[1][:10]), ("6", seen[0][:3])]:
            third = await second.fork(operation)
            found = await env.result(third)
            assert found[: len(expected)] == expected
            assert not {*found[len(expected) :]} & {*seen[0], *seen[1]}


@workflow(name="reserves")
async def reserves(ctx: Context) -> None:
    await ctx.transaction(reserve, ctx.run_id, 1, undo=release)
    await ctx.step(needs_luck)


async def test_a_fork_has_tags_and_principal_of_its_run_and_what_another_run_has_undone_at_the_same_place(sqlite_url):
    async with environment(sqlite_url, [reserves]) as env:
        await env.engine.database.transact(make_stock)
        first = await env.engine.start(reserves, tags={"team": "red"}, principal=Principal("u1", "anna"))
        await env.result(first)
        Luck.lasts = False
        with pytest.raises(StepFailed):
            await env.result(await env.engine.start(reserves))
        Luck.lasts = True
        forked = await first.fork("2")
        await env.result(forked)
        assert await env.engine.database.read(stock_of, forked.id) == []
        run = await env.engine.database.read(queries.get_run, forked.id)
        assert (run.tags, run.principal) == ({"team": "red"}, Principal("u1", "anna"))


async def test_a_fork_that_is_retried_still_has_the_past_that_it_was_made_of(database_url):
    async with environment(database_url, [flip_coins]) as env:
        first = await env.engine.start(flip_coins)
        seen = await env.result(first)
        Luck.lasts = False
        forked = await first.fork(str(2 * FLIPS + 1))
        with pytest.raises(StepFailed):
            await env.result(forked)
        Luck.lasts = True
        await forked.retry()
        assert await env.result(forked) == seen


async def test_a_forks_exported_history_can_be_replayed(database_url):
    async with environment(database_url, [flip_coins]) as env:
        first = await env.engine.start(flip_coins)
        await env.result(first)
        forked = await first.fork("10")
        found = await env.result(forked)
        assert replay_history(flip_coins, await export_history(env.engine, forked.id)) == found


@workflow(name="shows-and-goes-on")
async def show_and_go_on(ctx: Context, life: int) -> None:
    await ctx.set_view(f"life {life}", life)
    await ctx.step(double, life)
    await ctx.set_view("last", life)
    if life < 3:
        await ctx.continue_as_new(life + 1)


@pytest.mark.parametrize("place", [None, "1", "2", "3"])
async def test_a_fork_of_a_later_life_has_the_views_of_the_lives_before(database_url, place):
    async with environment(database_url, [show_and_go_on]) as env:
        first = await env.engine.start(show_and_go_on, 1)
        await env.result(first)
        shown = {"life 1": 1, "life 2": 2, "life 3": 3, "last": 3}
        forked = await first.fork(place)
        await env.result(forked)
        forked_again = await forked.fork(place)
        await env.result(forked_again)
        for handle in (first, forked, forked_again):
            assert (await env.engine.database.read(queries.get_run, handle.id)).views == shown


@workflow(name="tells-of-it")
async def tell_of_it(ctx: Context) -> None:
    await ctx.step(double, 1)
    await ctx.publish(OrderShipped, Order(id="a", amount=1))


async def test_a_fork_that_begins_where_something_was_published_publishes_an_event_of_its_own(database_url):
    async with environment(database_url, [tell_of_it]) as env:
        first = await env.engine.start(tell_of_it)
        await env.result(first)
        forked = await first.fork("2")
        await env.result(forked)
        told = select(events.c.id, events.c.subject).where(events.c.type == OrderShipped.name)
        found = await env.engine.database.read(lambda c: c.execute(told).all())
        assert {row.subject for row in found} == {first.id, forked.id}
        assert len({row.id for row in found}) == 2


@workflow(name="flips-on")
async def flip_on(ctx: Context, life: int) -> list[str]:
    """Flip some coins in each of three lives."""
    for number in range(FLIPS):
        await (ctx.step(double, number) if ctx.random() < 0.5 else ctx.sleep(60))
    if life < 2:
        await ctx.continue_as_new(life + 1)
    return [ctx.run_id, str(ctx.uuid())]


async def test_a_life_that_has_continued_as_new_can_be_replayed_and_forked(database_url):
    async with environment(database_url, [flip_on]) as env:
        run = await env.engine.start(flip_on, 0, id="x")
        found = await env.result(run)
        assert replay_history(flip_on, await export_history(env.engine, "x")) == found
        for past in ("x~1", "x~2"):
            assert replay_history(flip_on, await export_history(env.engine, past)) is None
            forked = await env.engine.handle(past, flip_on).fork(str(FLIPS // 2))
            assert (await env.result(forked))[0] == forked.id


@workflow(name="adds-up")
async def add_up(ctx: Context, amounts: list[int]) -> list[int]:
    """Receive two payments in each life."""
    both = [(await ctx.wait_event(PaymentCaptured, {"id": "o"})).amount for _ in range(2)]
    if not amounts:
        await ctx.continue_as_new(both)
    return [*amounts, *both]


@pytest.mark.parametrize("begins_at", [None, "1", "2"])
async def test_a_fork_of_a_later_life_receives_nothing_that_the_lives_before_have_received(database_url, begins_at):
    async with environment(database_url, [add_up]) as env:
        run = await env.engine.start(add_up, [])
        for amount in (1, 2, 3, 4):
            event = Event.of(PaymentCaptured, Order(id="o", amount=amount), source="/shop")
            await env.engine.database.transact(lambda connection, event=event: connection.publish(event))
        assert await env.result(run) == [1, 2, 3, 4]
        assert await env.result(await run.fork(begins_at)) == [1, 2, 3, 4]


@workflow(name="pays-and-needs-luck")
async def pay_and_need_luck(ctx: Context) -> str:
    await ctx.step(double, 0)
    await ctx.transaction(reserve, "paid", 10, undo=release)
    await ctx.step(needs_luck)
    await ctx.step(double, 1)
    return "shipped"


async def test_a_fork_does_anew_what_was_undone_wherever_it_begins(database_url):
    """It would ship what is not paid any more."""
    async with environment(database_url, [pay_and_need_luck]) as env:
        await env.engine.database.transact(make_stock)
        Luck.lasts = False
        first = await env.engine.start(pay_and_need_luck)
        with pytest.raises(StepFailed):
            await env.result(first)
        Luck.lasts = True
        forked = await first.fork("3")
        assert await env.result(forked) == "shipped"
        assert await env.engine.database.read(stock_of, "paid") == [-10, 10, -10]
        assert calls == [("double", 0), ("double", 1)]


@workflow(name="holds-and-needs-luck")
async def hold_and_need_luck(ctx: Context) -> str:
    await ctx.transaction(reserve, "shared", 1, undo=release)
    await ctx.step(double, 0)
    await ctx.transaction(reserve, "own", 2, undo=release)
    await ctx.step(needs_luck)
    return "done"


async def stock(env, name):
    return await env.engine.database.read(stock_of, name)


@pytest.mark.parametrize("how", ["fails", "is retried and fails", "is cancelled", "is forked again"])
async def test_a_fork_undoes_what_it_has_done_and_leaves_what_the_other_run_has_done_to_that(database_url, how):
    """That one has completed: nobody may give back what it has paid for."""
    async with environment(database_url, [hold_and_need_luck]) as env:
        await env.engine.database.transact(make_stock)
        first = await env.engine.start(hold_and_need_luck)
        assert await env.result(first) == "done"
        Luck.lasts = False
        forked = await first.fork("2")
        if how == "is cancelled":
            await forked.cancel()
        with pytest.raises((StepFailed, RunCancelled)):
            await env.result(forked)
        if how == "is forked again":
            forked = await forked.fork("4")
        elif how == "is retried and fails":
            await forked.retry()
        if how.startswith("is "):
            with pytest.raises((StepFailed, RunCancelled)):
                await env.result(forked)
        assert await stock(env, "shared") == [-1]
        assert sum(await stock(env, "own")) == -2
        history = await env.engine.database.read(queries.get_history, forked.id)
        assert [row.undo.status for row in history if row.operation == "1"] == ["declared"]


def holds(name):
    return lambda ctx: ctx.transaction(reserve, name, 1, undo=release)


def shows(ctx):
    return ctx.set_view("shown", 1)


def doubles(ctx):
    return ctx.step(double, 1)


def changing(*operations):
    @workflow(name="changing")
    async def change(ctx: Context) -> None:
        for operation in operations:
            await operation(ctx)
        await ctx.wait_signal(address_changed)

    return change


@pytest.mark.parametrize(
    ("changed", "own"),
    [((holds("shared"), holds("own"), doubles), [-1, 1]), ((doubles,), [-1])],
    ids=["differs behind", "differs in what is shared"],
)
async def test_a_parked_fork_that_is_cancelled_leaves_what_is_not_its_own(database_url, changed, own):
    async with environment(database_url, [changing(holds("shared"), holds("own"), shows)]) as env:
        await env.engine.database.transact(make_stock)
        first = await env.engine.start(changing())
        await env.until_resting()
        forked = await first.fork("2")
        await env.until_resting()
        assert await stock(env, "shared") == [-1]
        assert await env.engine.database.read(stock_of, "own") == [-1, -1]
        start = env.now
    async with environment(database_url, [changing(*changed)], start=start) as env:
        await env.engine.handle(forked.id).signal(address_changed, "look at it")
        await wait_until(lambda: is_parked(env, forked.id))
        await env.engine.handle(forked.id).cancel()
        with pytest.raises(RunCancelled):
            await env.engine.handle(forked.id).result(10)
        assert await stock(env, "shared") == [-1]
        assert await stock(env, "own") == [-1, *own]
        rows = await env.engine.database.read(queries.get_history, forked.id)
        assert [row.operation for row in rows if row.kind == "undo"] == ["2/undo"]


async def is_parked(env, run_id):
    return await env.engine.handle(run_id).status() == "nondeterministic"
