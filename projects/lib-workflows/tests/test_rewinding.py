"""What a retry and a fork take is of their own run alone, and of what no retry has set aside."""

import pytest
import sqlalchemy as sa
from flows import address_changed, make_stock, release, reserve

from lib_workflows import Context, Engine, StepFailed, step, tables, workflow
from lib_workflows.errors import OperationNotFound
from lib_workflows.reading import queries
from lib_workflows.runs import rewind

OF_RUNS = [table for table in tables.metadata.sorted_tables if "run" in table.columns]


class Luck:
    """How many steps go well before one does not."""

    left = 0


@step
async def needs_luck() -> None:
    Luck.left -= 1
    if Luck.left < 0:
        raise ConnectionError("out of luck")


@workflow(name="moves-twice")
async def moves_twice(ctx: Context) -> str:
    await ctx.transaction(reserve, ctx.run_id, 1, undo=release)
    first = await ctx.wait_signal(address_changed)
    await ctx.set_view("address", first)
    await ctx.set_tags({"address": first})
    await ctx.step(needs_luck)
    second = await ctx.wait_signal(address_changed)
    await ctx.step(needs_luck)
    return f"{first} {second}"


async def play(engine, run_id, luck):
    """A run whose tags and signals say which one it is; it fails where its luck ends."""
    Luck.left = luck
    handle = await engine.start(moves_twice, id=run_id, tags={"run": run_id})
    for number in (1, 2):
        await handle.signal(address_changed, f"{run_id}{number}")
    if luck < 2:
        with pytest.raises(StepFailed):
            await handle.result(10)
    else:
        assert await handle.result(10) == f"{run_id}1 {run_id}2"
    return handle


def everything_of(connection, run_id):
    found = {table.name: connection.execute(sa.select(table).where(table.c.run == run_id)).all() for table in OF_RUNS}
    return found | {"runs": connection.execute(sa.select(tables.runs).where(tables.runs.c.id == run_id)).all()}


def trace_of_attempts(connection, run_id):
    both = {"run": run_id, "operation": "7", "name": "needs_luck"}
    connection.execute(sa.insert(tables.attempts).values(**both, attempt=1, next_at=0, error="{}"))
    connection.execute(sa.insert(tables.heartbeats).values(**both, progress="1", sent_at=0))


async def test_a_retry_and_a_fork_take_nothing_of_another_run_and_leave_it_as_it_is(sqlite_url):
    async with Engine.open(sqlite_url, [moves_twice]) as engine:
        await engine.database.transact(make_stock)
        await play(engine, "other", 1)
        await engine.database.transact(trace_of_attempts, "other")
        await play(engine, "second", 2)
        await play(engine, "first", 2)
        await play(engine, "fails", 1)
    async with Engine.open(sqlite_url, [moves_twice], works=False) as engine:
        read, transact = engine.database.read, engine.database.transact
        await transact(lambda c: rewind.fork(c, "second", from_operation="7"))
        other = await read(everything_of, "other")
        for operation in ("7", "4", None, "7"):  # the last one is that of the first once more
            await transact(lambda c, op=operation: rewind.fork(c, "first", from_operation=op, new_id=f"from-{op}"))
        undone = await transact(lambda c: rewind.fork(c, "other", from_operation="7"))
        await transact(rewind.retry, "fails")
        assert await read(everything_of, "other") == other

        late, early, anew, fails = [
            await read(everything_of, run) for run in ("from-7", "from-4", "from-None", "fails")
        ]
        kinds = ["transaction", "wait_signal", "view", "tags", "step", "wait_signal", "fork"]
        assert [row.kind for row in late["history"]] == kinds
        assert [row.kind for row in early["history"]] == [*kinds[:3], "fork"]
        assert {found["history"][-1].name for found in (late, early)} == {"first"}
        assert anew["history"] == []
        assert [[row.value for row in found["views"]] for found in (late, early, anew)] == [
            ['"first1"'], ['"first1"'], [],
        ]  # fmt: skip
        assert [found["messages"] for found in (late, early, anew)] == [[], [], []]
        runs = [await read(queries.get_run, run) for run in ("from-7", "from-4", "from-None", "fails")]
        assert [run.tags for run in runs] == [
            {"run": "first", "address": "first1"}, {"run": "first"}, {"run": "first"}, {"run": "fails"},
        ]  # fmt: skip
        assert [run.forked_from for run in runs] == ["first", "first", "first", None]
        assert [row.payload for row in fails["messages"]] == ['"fails1"', '"fails2"']
        again = await read(everything_of, undone)
        assert (again["history"], [row.payload for row in again["messages"]]) == ([], ['"other1"', '"other2"'])
        with pytest.raises(OperationNotFound):
            await transact(lambda c: rewind.fork(c, "first", from_operation="8"))


async def test_a_fork_of_a_run_that_was_retried_has_nothing_of_what_the_retry_set_aside(sqlite_url):
    async with Engine.open(sqlite_url, [moves_twice]) as engine:
        await engine.database.transact(make_stock)
        handle = await play(engine, "retried", 1)
        Luck.left = 2
        await handle.retry()
        assert await handle.result(10) == "retried1 retried2"
        Luck.left = 1
        forked = await handle.fork("7")
        assert await forked.result(10) == "retried1 retried2"
        rows = (await engine.database.read(everything_of, forked.id))["history"]
        assert [row.operation for row in rows] == ["1", "2", "3", "4", "5", "6", "fork:17", "7"]


@workflow(name="says-who-it-is")
async def says_who_it_is(ctx: Context) -> str:
    me = str(ctx.uuid())
    await ctx.set_view("me", me)
    try:
        await ctx.step(needs_luck)
    except StepFailed:
        await ctx.set_view("seen", me)
    if Luck.left < 0:
        raise ValueError("still out of luck")
    return me


async def test_a_fork_that_is_retried_from_within_what_it_shares_still_has_the_chance_of_its_past(sqlite_url):
    async with Engine.open(sqlite_url, [says_who_it_is]) as engine:
        Luck.left = 0
        handle = await engine.start(says_who_it_is)
        with pytest.raises(ValueError, match="luck"):
            await handle.result(10)
        me = await handle.view("me")
        forked = await handle.fork("3")
        with pytest.raises(ValueError, match="luck"):
            await forked.result(10)
        Luck.left = 1
        await forked.retry()
        assert await forked.result(10) == me
