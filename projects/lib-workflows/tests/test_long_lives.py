"""Runs that outlive code, histories and their starters: continue-as-new, patches, runs started apart, tags."""

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import timedelta

import pytest
from flows import Order, PaymentCaptured, address_changed, calls, double, doubling
from sqlalchemy import func, select

from lib_events.event import Event
from lib_events.event_log import read_after
from lib_events.testing import wait_until
from lib_workflows import (
    ChildrenTooDeep,
    Context,
    Engine,
    RunCancelled,
    RunConflict,
    WaitTimeout,
    current_step,
    step,
    workflow,
)
from lib_workflows.reading import queries
from lib_workflows.runs.lifecycle_events import RUN_QUEUED
from lib_workflows.runs.record import RECEIVED_KIND, load
from lib_workflows.tables import history, messages
from lib_workflows.testing import export_history, replay_history, survive

keys = []


@step
async def note_key() -> None:
    keys.append(current_step().idempotency_key)


@pytest.fixture(autouse=True)
def no_keys_yet():
    keys.clear()


async def run_of(engine, run_id):
    return await engine.database.read(queries.get_run, run_id)


async def waits(engine, run_id):
    async def rests():
        run = await run_of(engine, run_id)
        return run is not None and run.status == "waiting"

    await wait_until(rests)


# Continuing as new


@workflow(name="counting-down")
async def counting_down(ctx: Context, number: int) -> list[str]:
    await ctx.step(note_key)
    if number > 0:
        await ctx.continue_as_new(number - 1)
    return [str(ctx.uuid()), str(ctx.history_length)]


async def test_a_run_continues_with_an_empty_history_under_its_own_id(database_url):
    async with Engine.open(database_url, [counting_down]) as engine:
        handle = await engine.start(counting_down, 2, id="count", tags={"kind": "test"})
        _, length = await handle.result(10)
        now = await run_of(engine, "count")
        pasts = [await run_of(engine, f"count~{life}") for life in (1, 2)]
        past_history = await engine.database.read(queries.get_history, "count~1")
    assert length == "1"
    assert (now.status, now.input, now.tags) == ("completed", 0, {"kind": "test"})
    assert [(past.status, past.input) for past in pasts] == [("continued", 2), ("continued", 1)]
    assert [entry.name for entry in past_history] == ["note_key"]
    assert keys == ["count:1", "count~1:1", "count~2:1"]  # nobody takes the second life's step for the first's


@workflow(name="spawning")
async def spawning(ctx: Context, number: int) -> list[int | str]:
    doubled = await ctx.child(doubling, number)
    chance = str(ctx.uuid())
    if number > 1:
        await ctx.set_view("chance", chance)
        await ctx.continue_as_new(number - 1)
    return [doubled, chance]


async def test_children_and_chance_of_another_life_are_others(database_url):
    async with Engine.open(database_url, [spawning, doubling]) as engine:
        handle = await engine.start(spawning, 2, id="spawning")
        doubled, chance = await handle.result(10)
        assert doubled == 2
        assert await handle.view("chance") != chance
        children = (await engine.database.read(queries.list_runs, queries.RunFilter(workflow="doubling"))).items
        assert sorted(child.parent for child in children) == ["spawning", "spawning~1"]


async def test_another_run_that_is_called_like_a_life_has_other_keys_and_another_chance(database_url):
    async with Engine.open(database_url, [counting_down]) as engine:
        (named, _) = await (await engine.start(counting_down, 0, id="count~1")).result(10)
        (own, _) = await (await engine.start(counting_down, 2, id="count")).result(10)
        assert len(keys) == len(set(keys)) == 4
        assert named != own
        assert (await run_of(engine, "count~1")).status == "completed"
        past = queries.RunFilter(statuses=["continued"])
        assert await engine.database.read(queries.list_run_ids, past) == ["count~2", "count~3"]


async def test_a_parent_waits_through_the_lives_of_its_child(database_url):
    @workflow(name="parent")
    async def parent(ctx: Context) -> list[str]:
        return await ctx.child(counting_down, 3)

    async with Engine.open(database_url, [parent, counting_down]) as engine:
        assert (await (await engine.start(parent)).result(10))[1] == "1"


@workflow(name="collecting")
async def collecting(ctx: Context, found: list[str]) -> list[str]:
    """One signal for each life."""
    found = [*found, await ctx.wait_signal(address_changed)]
    if len(found) < 3:
        await ctx.continue_as_new(found)
    return found


async def test_signals_that_come_meanwhile_are_kept(database_url):
    async with Engine.open(database_url, [collecting]) as engine:
        handle = await engine.start(collecting, [])
        for address in ("a", "b", "c"):
            await handle.signal(address_changed, address)
        assert await handle.result(10) == ["a", "b", "c"]


@workflow(name="receiving")
async def receiving(ctx: Context, found: list[int]) -> list[int]:
    """One event for each life."""
    paid = await ctx.wait_event(PaymentCaptured, match={"id": "o-1"})
    found = [*found, paid.amount]
    if len(found) < 3:
        await ctx.continue_as_new(found)
    return found


async def test_each_event_reaches_the_run_once_in_all_its_lives(database_url):
    async with Engine.open(database_url, [receiving]) as engine:
        handle = await engine.start(receiving, [])

        def publish(connection, amount):
            connection.publish(Event.of(PaymentCaptured, Order(id="o-1", amount=amount), source=connection.source))

        for amount in (1, 2, 3):
            await engine.database.transact(publish, amount)
        assert await handle.result(10) == [1, 2, 3]


@dataclass
class Life:
    number: int
    waits: list[bool]  # in which life it waits for a payment, for a moment


@workflow(name="seldom-waiting")
async def seldom_waiting(ctx: Context, life: Life) -> int | None:
    """Between two lives it is told to go on; it ends with what it has received, or with its last life."""
    if life.waits[life.number]:
        with contextlib.suppress(WaitTimeout):
            return (await ctx.wait_event(PaymentCaptured, {"id": "o-1"}, timeout=0)).amount
    if life.number == len(life.waits) - 1:
        return None
    await ctx.wait_signal(address_changed)
    await ctx.continue_as_new(Life(life.number + 1, life.waits))
    return None


@pytest.mark.parametrize(
    ("waits", "received"),
    [
        ([True, True], 7),  # it came after the wait of the life before
        ([False, True], 7),  # nobody had waited for it
        ([True, True, True], 7),
        ([False, False, True], None),  # a life went by in which nobody waited: it is not kept for ever
    ],
)
async def test_an_event_is_there_for_the_life_in_which_it_came_and_the_next(database_url, waits, received):
    async with Engine.open(database_url, [seldom_waiting]) as engine:
        handle = await engine.start(seldom_waiting, Life(0, waits))

        async def rests(life):
            run = await engine.database.read(queries.get_run, handle.id)
            return run.status == "waiting" and run.input["number"] == life

        await wait_until(lambda: rests(0))
        paid = Event.of(PaymentCaptured, Order(id="o-1", amount=7), source="/shop")
        await engine.database.transact(lambda connection: connection.publish(paid))
        await handle.signal(address_changed, "")
        if len(waits) == 3 and not waits[1]:
            await wait_until(lambda: rests(1))
            await handle.signal(address_changed, "")
        assert await handle.result(10) == received


@workflow(name="continuing-in-a-branch")
async def continuing_in_a_branch(ctx: Context, number: int) -> int:
    async def branch() -> None:
        if number:
            await ctx.continue_as_new(number - 1)

    await ctx.gather(branch(), ctx.sleep(0 if not number else timedelta(days=1)))
    return number


async def test_continuing_ends_the_branches_beside_it(sqlite_url):
    async with Engine.open(sqlite_url, [continuing_in_a_branch]) as engine:
        assert await (await engine.start(continuing_in_a_branch, 1)).result(10) == 0


async def test_a_cancelled_run_does_not_continue(sqlite_url):
    undone = []

    async def undo(result: int | None, number: int) -> None:
        undone.append(number)

    @workflow(name="stubborn")
    async def stubborn(ctx: Context, number: int) -> None:
        await ctx.step(double, number, undo=undo)
        try:
            await ctx.sleep(timedelta(days=1))
        finally:
            await ctx.continue_as_new(number + 1)

    async with Engine.open(sqlite_url, [stubborn]) as engine:
        handle = await engine.start(stubborn, 1)
        await waits(engine, handle.id)
        await handle.cancel("enough")
        with pytest.raises(RunCancelled, match="enough"):
            await handle.result(10)
    assert undone == [1]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_continuing_survives_a_crash_at_any_commit(tmp_path, after, crash_places):
    async def scenario(engine):
        handle = await engine.start(collecting, [], id="c")
        for address in ("a", "b", "c"):
            if await engine.database.read(_signals_sent, "c") < "abc".index(address) + 1:
                await handle.signal(address_changed, address)
        return await handle.result(10)

    for number in crash_places.of_about(12):
        result, crashed = await survive(
            f"sqlite:///{tmp_path}/{number}.db", [collecting], scenario, crash_at=number, after=after
        )
        assert result == ["a", "b", "c"]
        if not crashed:
            break
    assert number > 5


def _signals_sent(connection, run_id):

    waiting = connection.scalar(select(func.count()).select_from(messages).where(messages.c.run == run_id))
    taken = select(func.count()).where(history.c.kind == "wait_signal", history.c.run.startswith(run_id))
    return waiting + connection.scalar(taken)


# Patches


def flow_of(patched):
    """The same workflow before and after a patch."""

    @workflow(name="patched")
    async def before(ctx: Context, number: int) -> list[int]:
        found = [await ctx.step(double, number)]
        await ctx.wait_signal(address_changed)
        return [*found, await ctx.step(double, found[0])]

    @workflow(name="patched")
    async def after(ctx: Context, number: int) -> list[int]:
        found = [await ctx.step(double, number)]
        if ctx.patched("child instead"):
            found.append(await ctx.child(doubling, 100))
        await ctx.wait_signal(address_changed)
        return [*found, await ctx.step(double, found[0])]

    return after if patched else before


async def test_runs_under_way_keep_to_the_old_code_and_new_ones_take_the_patch(database_url):
    async with Engine.open(database_url, [flow_of(patched=False), doubling]) as engine:
        await engine.start(flow_of(patched=False), 1, id="old")
        await waits(engine, "old")
    after = flow_of(patched=True)
    for _ in range(2):  # a replay gives the same answer
        async with Engine.open(database_url, [after, doubling]) as engine:
            await engine.start(after, 1, id="new")
            await waits(engine, "new")
    async with Engine.open(database_url, [after, doubling]) as engine:
        results = {}
        for run_id in ("old", "new"):
            handle = engine.handle(run_id, after)
            await handle.signal(address_changed, "on")
            results[run_id] = await handle.result(10)
        exported = {run_id: await export_history(engine, run_id) for run_id in results}
    assert results == {"old": [2, 4], "new": [2, 200, 4]}
    assert {run_id: replay_history(after, told) for run_id, told in exported.items()} == results
    assert replay_history(flow_of(patched=False), exported["old"]) == [2, 4]


async def test_a_patch_that_nobody_asks_for_any_more_is_no_difference(sqlite_url):
    @workflow(name="patched")
    async def later(ctx: Context, number: int) -> list[int]:
        found = [await ctx.step(double, number), await ctx.child(doubling, 100)]
        await ctx.wait_signal(address_changed)
        return [*found, await ctx.step(double, found[0])]

    after = flow_of(patched=True)
    async with Engine.open(sqlite_url, [after, doubling]) as engine:
        await engine.start(after, 1, id="new")
        await waits(engine, "new")
    async with Engine.open(sqlite_url, [later, doubling]) as engine:
        handle = engine.handle("new", later)
        await handle.signal(address_changed, "on")
        assert await handle.result(10) == [2, 200, 4]


async def test_a_retried_run_takes_the_patch_where_it_goes_on(sqlite_url):
    broken = [True]

    @step
    async def breakable() -> str:
        if broken:
            raise LookupError("broken")
        return "old way"

    @workflow(name="mended")
    async def old(ctx: Context) -> str:
        return await ctx.step(breakable)

    @workflow(name="mended")
    async def new(ctx: Context) -> str:
        return "new way" if ctx.patched("mended") else await ctx.step(breakable)

    async with Engine.open(sqlite_url, [old]) as engine:
        with pytest.raises(Exception, match="broken"):
            await (await engine.start(old, id="m")).result(10)
    async with Engine.open(sqlite_url, [new]) as engine:
        handle = engine.handle("m", new)
        await handle.retry()
        assert await handle.result(10) == "new way"


@pytest.mark.parametrize("how", ["retried", "forked"])
async def test_a_run_that_has_a_past_takes_the_patch_where_it_goes_on_too(database_url, how):
    @step
    async def breakable() -> str:
        raise LookupError("broken")

    def mended(*, patched):
        @workflow(name="mended")
        async def flow(ctx: Context) -> str:
            await ctx.step(double, 1)
            return "new way" if patched and ctx.patched("mended") else await ctx.step(breakable)

        return flow

    async with Engine.open(database_url, [mended(patched=False)]) as engine:
        with pytest.raises(Exception, match="broken"):
            await (await engine.start(mended(patched=False), id="m")).result(10)
    async with Engine.open(database_url, [mended(patched=True)]) as engine:
        handle = engine.handle("m", mended(patched=True))
        if how == "forked":
            handle = await handle.fork("2")
        else:
            await handle.retry()
        assert await handle.result(10) == "new way"
        exported = await export_history(engine, handle.id)
    assert replay_history(mended(patched=True), exported) == "new way"


@workflow(name="patched-in-its-next-life")
async def patched_in_its_next_life(ctx: Context, life: int) -> bool:
    if life:
        return ctx.patched("new way")
    await ctx.wait_event(PaymentCaptured)
    return await ctx.continue_as_new(1)


async def test_a_life_that_only_knows_what_it_has_received_takes_the_patch(sqlite_url):
    async with Engine.open(sqlite_url, [patched_in_its_next_life]) as engine:
        handle = await engine.start(patched_in_its_next_life, 0)
        paid = Event.of(PaymentCaptured, Order(id="o-1", amount=7), source="/shop")
        await engine.database.transact(lambda connection: connection.publish(paid))
        assert await handle.result(10) is True
        assert (await engine.database.read(load, [handle.id]))[0][1].history[0].kind == RECEIVED_KIND


# Runs started apart


@workflow(name="starting")
async def starting(ctx: Context, number: int) -> str:
    run_id = await ctx.start(doubling, number)
    await ctx.wait_signal(address_changed)
    return run_id


async def test_a_run_started_apart_goes_on_by_itself(database_url):
    async with Engine.open(database_url, [starting, doubling]) as engine:
        handle = await engine.start(starting, 21, id="starter")
        await waits(engine, "starter")
        (started,) = (await engine.database.read(queries.list_runs, queries.RunFilter(workflow="doubling"))).items
        assert await engine.handle(started.id, doubling).result(10) == 42
        assert (started.parent, started.correlation_id, started.causation_id) == (None, "starter", "starter")

        async def told():
            page = await engine.database.read(lambda connection: read_after(connection, 0, subject=started.id))
            return [placed.event.type for placed in page.events]

        assert (await wait_until(told))[0] == RUN_QUEUED.name
        await handle.cancel()
        with pytest.raises(RunCancelled):
            await handle.result(10)
        assert (await run_of(engine, started.id)).status == "completed"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_run_is_started_apart_exactly_once(tmp_path, after, crash_places):
    @workflow(name="starts")
    async def starts(ctx: Context) -> str:
        return await ctx.start(doubling, 4)

    async def scenario(engine):
        run_id = await (await engine.start(starts, id="s")).result(10)
        assert await engine.handle(run_id, doubling).result(10) == 8
        listed = await engine.database.read(queries.list_runs, queries.RunFilter(workflow="doubling"))
        return len(listed.items)

    for number in crash_places.of_about(10):
        url = f"sqlite:///{tmp_path}/{number}.db"
        count, crashed = await survive(url, [starts, doubling], scenario, crash_at=number, after=after)
        assert count == 1
        if not crashed:
            break


async def test_children_without_end_are_refused(sqlite_url):
    @workflow(name="endless")
    async def endless(ctx: Context, depth: int) -> int:
        try:
            return await ctx.child(endless, depth + 1)
        except ChildrenTooDeep:
            return depth

    @workflow(name="unhandled")
    async def unhandled(ctx: Context) -> int:
        return await ctx.child(unhandled)

    async with Engine.open(sqlite_url, [endless, unhandled]) as engine:
        assert await (await engine.start(endless, 0)).result(30) == 100
        with pytest.raises(ChildrenTooDeep, match="at most 100 deep, workflow unhandled"):
            await (await engine.start(unhandled)).result(30)


async def test_map_runs_a_branch_for_each_item(sqlite_url):
    @workflow(name="mapping")
    async def mapping(ctx: Context, numbers: list[int]) -> list[int]:
        return await ctx.map(lambda number: ctx.step(double, number), numbers, limit=2)

    async with Engine.open(sqlite_url, [mapping]) as engine:
        assert await (await engine.start(mapping, [3, 1, 2])).result(10) == [6, 2, 4]
    assert calls == [("double", 3), ("double", 1), ("double", 2)]


# The same id again


async def test_what_the_same_id_means_is_chosen(database_url):
    async with Engine.open(database_url, [doubling, starting]) as engine:
        first = await engine.start(doubling, 1, id="same")
        assert (await engine.start(doubling, 1, id="same")).id == first.id
        assert (await engine.start(doubling, 2, id="same", on_conflict="existing")).id == first.id
        for again in ({"input": 2}, {"input": 1, "on_conflict": "fail"}):
            with pytest.raises(RunConflict):
                await engine.start(doubling, again.pop("input"), id="same", **again)
        with pytest.raises(RunConflict):
            await engine.start(starting, 1, id="same", on_conflict="existing")
        assert await first.result(10) == 2


async def test_a_worker_takes_runs_of_its_queues_only(database_url):
    @workflow(name="queued", queue="gpu")
    async def queued(ctx: Context) -> str:
        return "done"

    async with Engine.open(database_url, [queued], queues=["cpu"]) as engine:
        handle = await engine.start(queued)
        elsewhere = await engine.start(queued, queue="cpu")
        assert await elsewhere.result(10) == "done"
        assert await handle.status() == "queued"
    async with Engine.open(database_url, [queued], queues=["gpu"]) as engine:
        assert await engine.handle(handle.id, queued).result(10) == "done"


async def test_a_run_is_forked_with_another_input(sqlite_url):
    async with Engine.open(sqlite_url, [doubling]) as engine:
        handle = await engine.start(doubling, 1)
        assert await handle.result(10) == 2
        assert await (await handle.fork(input=5)).result(10) == 10
        assert await (await engine.handle(handle.id).fork()).result(10) == 2


@workflow(name="begins-again")
async def begins_again(ctx: Context, left: int) -> str:
    address = await ctx.wait_signal(address_changed)
    return await ctx.continue_as_new(left - 1) if left else address


async def test_a_crash_before_a_run_has_gone_on_as_new_leaves_it_to_the_next_worker(database_url):
    async with Engine.open(database_url, [begins_again], lease_seconds=0.3) as engine:
        handle = await engine.start(begins_again, 1)
        await waits(engine, handle.id)
        executor, reached = engine.residence.executors[handle.id], asyncio.Event()

        async def never(_executor, _payload):
            reached.set()
            await asyncio.Event().wait()

        engine.residence.continue_as_new = never
        await handle.signal(address_changed, "first")
        await wait_until(reached.is_set)
        executor.ledger.row_is_due()  # as of a row that waited for the one before it
        executor.ledger.flush()
        await wait_until(lambda: executor.ledger.is_durable)
        await engine.abandon()
    async with Engine.open(database_url, [begins_again], lease_seconds=0.3) as engine:
        await wait_until(lambda: run_of(engine, f"{handle.id}~1"))  # nothing came for it, and it goes on all the same
        await engine.handle(handle.id).signal(address_changed, "second")
        assert await engine.handle(handle.id, begins_again).result(10) == "second"
