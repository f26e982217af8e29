"""Runs that a run starts under ids of its choice: whose they are, and what they mean when something happens again."""

import asyncio

import pytest
from flows import calls
from queued_flows import go_on, until
from sqlalchemy import select

from lib_workflows import Context, Engine, RunConflict, RunFailed, RunIdTaken, StepFailed, step, workflow
from lib_workflows.errors import DefinitionError
from lib_workflows.reading.queries import get_history
from lib_workflows.tables import runs
from lib_workflows.testing import survive

fails: dict[int, int] = {}  # by number: how often loading it fails


@pytest.fixture(autouse=True)
def nothing_fails():
    fails.clear()


@step(retries=0)
async def load(number: int) -> int:
    calls.append(("load", number))
    if calls.count(("load", number)) <= fails.get(number, 0):
        raise ValueError("not yet")
    return number


@step
async def unload(result: int | None, number: int) -> None:
    calls.append(("unload", number))


@step(retries=0)
async def sail(fair: bool) -> None:
    if not fair:
        raise ValueError("a storm")


@workflow(name="ship")
async def ship(ctx: Context, number: int) -> int:
    return await ctx.step(load, number)


@workflow(name="waits")
async def waits(ctx: Context, number: int) -> bool:
    return await ctx.wait_signal(go_on) == "yes"


@workflow(name="order")
async def order(ctx: Context, number: int) -> int:
    shipped = await ctx.child(ship, number, id=f"ship-{number}")
    mapped = await ctx.map(lambda n: ctx.child(ship, n, id=f"part-{n}"), range(number + 1, number + 3))
    await ctx.start(ship, number, id=f"bill-{number}")
    return shipped + sum(mapped)


async def ids(engine, name="ship"):
    return list(await engine.database.read(lambda c: c.scalars(select(runs.c.id).where(runs.c.workflow == name)).all()))


async def parent_of(engine, run_id):
    return await engine.database.read(lambda c: c.scalar(select(runs.c.parent).where(runs.c.id == run_id)))


async def test_a_child_has_the_id_that_its_parent_chose(database_url):
    async with Engine.open(database_url, [ship, order]) as engine:
        handle = await engine.start(order, 10)
        assert await handle.result(20) == 33
        assert await parent_of(engine, "ship-10") == handle.id
        assert await engine.handle("part-12", ship).result(5) == 12
        assert await engine.handle("bill-10", ship).result(20) == 10
        assert await parent_of(engine, "bill-10") is None


@pytest.mark.timeout(300)
@pytest.mark.parametrize("after", [False, True], ids=["before the commit", "after the commit"])
async def test_a_crash_at_any_commit_starts_each_of_them_once(database_url, after, crash_places):
    for tried, place in enumerate(crash_places.of_about(16), start=1):
        number = 10 * place

        async def scenario(engine, number=number):
            handle = await engine.start(order, number, id=f"order-{number}")
            result = await handle.result(20)
            await engine.handle(f"bill-{number}").result(20)
            return result

        result, crashed = await survive(
            database_url, [ship, order], scenario, crash_at=place, after=after, lease_seconds=0.2
        )
        assert result == 3 * number + 3, f"crash at {place}"
        async with Engine.open(database_url, [ship, order], works=False) as engine:
            assert len(await ids(engine)) == 4 * tried, f"crash at {place}"
            assert await parent_of(engine, f"ship-{number}") == f"order-{number}"
        if not crashed:
            break
    assert place > 10


async def test_many_children_that_were_named_go_on_after_their_parent_has_left_memory(database_url):
    @workflow(name="fleet")
    async def fleet(ctx: Context) -> int:
        return sum(await ctx.map(lambda n: ctx.child(waits, n, id=f"sails-{n}"), range(30)))

    async with Engine.open(database_url, [fleet, waits]) as engine:
        handle = await engine.start(fleet)
        await until(engine, [handle], "waiting")
        await until(engine, [engine.handle(f"sails-{n}") for n in range(30)], *["waiting"] * 30)
    async with Engine.open(database_url, [fleet, waits]) as engine:
        for number in range(30):
            await engine.handle(f"sails-{number}").signal(go_on, "yes")
        assert await engine.handle(handle.id, fleet).result(30) == 30


@workflow(name="asks-for-taken")
async def asks_for_taken(ctx: Context, run_id: str) -> str:
    try:
        await ctx.child(waits, 1, id=run_id)
    except RunIdTaken as error:
        await ctx.wait_signal(go_on)
        return f"{error.run_id}: {error}"
    return "had it"


async def test_the_id_of_a_run_from_outside_is_refused_to_a_child_also_after_a_replay(database_url):
    workflows = [asks_for_taken, waits]
    async with Engine.open(database_url, workflows) as engine:
        outside = await engine.start(waits, 1, id="mine")
        handle = await engine.start(asks_for_taken, "mine")
        await until(engine, [handle], "waiting")
    async with Engine.open(database_url, workflows) as engine:
        await engine.handle(handle.id).signal(go_on, "")
        told = await engine.handle(handle.id, asks_for_taken).result(20)
        assert told.startswith("mine: id of a child must be no other run's, got 'mine'")
        assert "ctx.start" in told
        await until(engine, [engine.handle(outside.id)], "waiting")  # nobody has cancelled it
        assert await parent_of(engine, "mine") is None


async def test_of_two_parents_and_of_two_operations_one_has_the_child(database_url):
    @workflow(name="twice")
    async def twice(ctx: Context) -> list[str]:
        async def one() -> str:
            try:
                return str(await ctx.child(ship, 1, id="only"))
            except RunIdTaken:
                return "taken"

        return await ctx.gather(one(), one())

    async with Engine.open(database_url, [twice, ship]) as engine:
        both = [await (await engine.start(twice)).result(20), await (await engine.start(twice)).result(20)]
        assert sorted(both[0]) == ["1", "taken"]
        assert both[1] == ["taken", "taken"]
        assert calls == [("load", 1)]


async def test_a_start_apart_finds_a_run_of_that_id_as_a_start_from_outside_does(database_url):
    @workflow(name="starts")
    async def starts(ctx: Context) -> list[str]:
        found = [await ctx.start(waits, 1, id="actor")]
        found.append(await ctx.start(waits, 1, id="actor"))
        found.append(await ctx.start(waits, 2, id="actor", on_conflict="existing"))
        for policy in ("same", "fail"):
            try:
                await ctx.start(waits, 2 if policy == "same" else 1, id="actor", on_conflict=policy)
            except RunConflict as conflict:
                found.append(f"{policy}: {conflict.run_id}")
        await ctx.wait_signal(go_on)
        return found

    async with Engine.open(database_url, [starts, waits]) as engine:
        handle = await engine.start(starts)
        await until(engine, [handle, engine.handle("actor")], "waiting", "waiting")
    async with Engine.open(database_url, [starts, waits]) as engine:
        await engine.handle(handle.id).signal(go_on, "")
        told = await engine.handle(handle.id, starts).result(20)
        assert told == ["actor", "actor", "actor", "same: actor", "fail: actor"]
        assert await ids(engine, "waits") == ["actor"]
        assert await engine.start(waits, 1, id="actor") is not None  # from outside it is that run, too
        history = await engine.database.read(get_history, handle.id)
        assert [(row.kind, row.status) for row in history][:5] == [
            *[("start", "completed")] * 3,
            *[("start", "failed")] * 2,
        ]


@workflow(name="voyage")
async def voyage(ctx: Context) -> list[int]:
    """What was undone is done again; what stands, stands; what failed is tried again."""
    loaded = await ctx.child(ship, 1, id="undone", undo=unload)
    await ctx.start(waits, 1, id="apart")
    standing, flaky = await ctx.gather(ctx.child(ship, 2, id="stands"), ctx.child(ship, 3, id="flaky"))
    return [loaded, standing, flaky]


async def test_a_retry_goes_on_with_the_children_it_had(database_url):
    fails[3] = 1
    async with Engine.open(database_url, [voyage, ship, waits]) as engine:
        handle = await engine.start(voyage)
        with pytest.raises((StepFailed, RunFailed)):
            await handle.result(20)
        await until(engine, [engine.handle("stands")], "completed")
        assert calls.count(("unload", 1)) == 1
        await handle.retry()
        assert await handle.result(20) == [1, 2, 3]
        # The one that was undone once more, the one that stands once, the one that failed again.
        assert [calls.count(("load", number)) for number in (1, 2, 3)] == [2, 1, 2]
        assert sorted(await ids(engine)) == ["flaky", "stands", "undone"]
        assert await ids(engine, "waits") == ["apart"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("after", [False, True], ids=["before the commit", "after the commit"])
async def test_a_crash_at_any_commit_of_a_retry_loses_no_child(database_url, after, crash_places):
    for tried, number in enumerate(crash_places.of_about(10), start=1):
        calls.clear()
        fails[3] = 1

        @workflow(name="voyages")
        async def voyages(ctx: Context, number: int) -> list[int]:
            loaded = await ctx.child(ship, 1, id=f"undone-{number}", undo=unload)
            flaky = await ctx.child(ship, 3, id=f"flaky-{number}")
            return [loaded, flaky]

        async with Engine.open(database_url, [voyages, ship]) as engine:
            with pytest.raises((StepFailed, RunFailed)):
                await (await engine.start(voyages, number, id=f"voyage-{number}")).result(20)

        async def scenario(engine, number=number, voyages=voyages):
            handle = engine.handle(f"voyage-{number}", voyages)
            if await handle.status() == "failed":
                await handle.retry()
            return await handle.result(20)

        result, crashed = await survive(
            database_url, [voyages, ship], scenario, crash_at=number, after=after, lease_seconds=0.2
        )
        assert result == [1, 3], f"crash at {number}"
        async with Engine.open(database_url, [ship], works=False) as engine:
            assert len(await ids(engine)) == 2 * tried, f"crash at {number}"
        if not crashed:
            break
    assert number > 5


async def test_a_fork_does_not_get_the_children_of_the_run_it_was_made_of(database_url):
    @workflow(name="forked")
    async def forked(ctx: Context) -> str:
        before = await ctx.child(ship, 1, id="before")
        try:
            await ctx.child(ship, 2, id="behind")
        except RunIdTaken as error:
            return f"{before} {error.run_id}"
        return f"{before}"

    async with Engine.open(database_url, [forked, ship]) as engine:
        handle = await engine.start(forked)
        assert await handle.result(20) == "1"
        fork = await handle.fork(from_operation="2")
        assert await engine.handle(fork.id, forked).result(20) == "1 behind"
        assert await parent_of(engine, "behind") == handle.id


async def test_the_next_life_of_a_run_needs_ids_of_its_own(database_url):
    @workflow(name="lives")
    async def lives(ctx: Context, life: int) -> list[str]:
        try:
            await ctx.child(ship, 1, id="nightly")
        except RunIdTaken:
            return ["taken", str(await ctx.child(ship, 2, id=f"nightly-{life}"))]
        return await ctx.continue_as_new(life + 1)

    async with Engine.open(database_url, [lives, ship]) as engine:
        assert await (await engine.start(lives, 0)).result(20) == ["taken", "2"]


async def test_a_cancellation_reaches_a_child_that_was_named(database_url):
    @workflow(name="parent")
    async def parent(ctx: Context) -> None:
        await ctx.child(waits, 1, id="named")

    async with Engine.open(database_url, [parent, waits]) as engine:
        handle = await engine.start(parent)
        await until(engine, [engine.handle("named")], "waiting")
        await handle.cancel("enough")
        await until(engine, [handle, engine.handle("named")], "cancelled", "cancelled")


@workflow(name="hasty")
async def hasty(ctx: Context, number: int) -> str:
    """What is started is cancelled while that is on its way."""
    try:
        await ctx.gather(
            ctx.child(waits, 1, id=f"a-{number}"), ctx.start(waits, 1, id=f"b-{number}"), ctx.step(sail, False)
        )
    except StepFailed:
        await ctx.sleep(0.001)
    return "got over it"


@pytest.mark.timeout(300)
async def test_a_start_that_is_cancelled_on_its_way_has_a_row_and_a_replay_finds_it(database_url, crash_places):
    for number in crash_places.of_about(8):

        async def scenario(engine, number=number):
            return await (await engine.start(hasty, number, id=f"hasty-{number}")).result(20)

        result, crashed = await survive(database_url, [hasty, waits], scenario, crash_at=number, lease_seconds=0.2)
        assert result == "got over it", f"crash at {number}"
        async with Engine.open(database_url, [hasty, waits]) as engine:
            rows = await engine.database.read(get_history, f"hasty-{number}")
            ended = {row.operation: row.status for row in rows}
            assert ended["1/2/1"] in ("completed", "cancelled")
            there = f"b-{number}" in await ids(engine, "waits")
            assert there == (ended["1/2/1"] == "completed"), f"crash at {number}"
            if f"a-{number}" in await ids(engine, "waits"):
                await until(engine, [engine.handle(f"a-{number}")], "cancelled")
            if there:
                await engine.handle(f"b-{number}").cancel("enough")
        if not crashed:
            break
    assert number > 3


async def test_an_id_that_cannot_be_looked_up_or_follows_from_something_is_refused(database_url):
    @workflow(name="wrong")
    async def wrong(ctx: Context) -> int:
        refused = 0
        for run_id in ("", "a/b", "..", "x" * 129, "started~1", "schedule~nightly~1", 5):
            for start in (ctx.child, ctx.start):
                with pytest.raises(DefinitionError, match="id of a run must"):
                    start(waits, 1, id=run_id)
                refused += 1
        with pytest.raises(DefinitionError, match="on_conflict must be one of same, existing, fail"):
            ctx.start(waits, 1, id="a", on_conflict="ignore")
        return refused

    async with Engine.open(database_url, [wrong, waits]) as engine:
        assert await (await engine.start(wrong)).result(20) == 14


async def test_two_engines_start_a_child_of_one_id_once(postgresql_url):
    @workflow(name="rivals")
    async def rivals(ctx: Context, number: int) -> str:
        try:
            return str(await ctx.child(ship, number % 10, id=f"prize-{number % 10}"))
        except RunIdTaken:
            return "taken"

    async with Engine.open(postgresql_url, [rivals, ship]) as one, Engine.open(postgresql_url, [rivals, ship]) as other:
        handles = await asyncio.gather(*(engine.start(rivals, n) for n in range(20) for engine in (one, other)))
        results = await asyncio.gather(*(handle.result(30) for handle in handles))
        assert results.count("taken") == 30
        assert len(await ids(one)) == 10
