"""What may stand in `undo=`, and in `ctx.transaction`: what would undo nothing is refused, or told as a failure."""

import functools
from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa
from flows import calls, double

from lib_events.database import Connection
from lib_workflows import Context, DefinitionError, Engine, step, workflow
from lib_workflows.reading import queries

NOTES = sa.Table("notes_of_undos", sa.MetaData(), sa.Column("what", sa.Text))


async def give_back(result: int | None, number: int) -> None:
    calls.append(("given back", number))


async def yields(result: int | None, number: int) -> AsyncIterator[None]:
    calls.append(("given back", number))
    yield


@step(name="give-back")
async def give_back_in_a_step(result: int | None, number: int) -> None:
    calls.append(("given back by a step", result, number))


def note(connection: Connection, what: str, number: int) -> int:
    connection.execute(sa.schema.CreateTable(NOTES, if_not_exists=True))
    connection.execute(sa.insert(NOTES).values(what=what))
    return number


class Note:
    """A transaction function that is an object."""

    def __call__(self, connection: Connection, number: int) -> int:
        return note(connection, "object", number)


@workflow(name="forgets-to-await")
async def forgets_to_await(ctx: Context, where: str) -> None:
    if where == "step":
        await ctx.step(double, 1, undo=lambda _, number: give_back(None, number))
    elif where == "generator":
        await ctx.step(double, 1, undo=yields)
    else:
        await ctx.transaction(note, "a", 1, undo=lambda connection, result, what, number: give_back(result, number))
    raise ValueError("no")


@pytest.mark.parametrize("where", ["step", "transaction", "generator"])
async def test_an_undo_that_leaves_something_to_await_has_failed_and_says_so(database_url, where):
    async with Engine.open(database_url, [forgets_to_await]) as engine:
        handle = await engine.start(forgets_to_await, where)
        with pytest.raises(ValueError, match="no"):
            await handle.result(10)
        (operation, *_) = await engine.database.read(queries.get_history, handle.id)
    assert ("given back", 1) not in calls
    assert operation.undo is not None
    assert operation.undo.status == "failed"
    assert "must have undone it when it returns, got <" in operation.undo.error.message


@workflow(name="notes-parts")
async def notes_parts(ctx: Context) -> list[int]:
    return [await ctx.transaction(functools.partial(note), "part", 1), await ctx.transaction(Note(), 2)]


async def test_a_transaction_function_may_be_part_of_one_or_an_object(database_url):
    async with Engine.open(database_url, [notes_parts]) as engine:
        handle = await engine.start(notes_parts)
        assert await handle.result(10) == [1, 2]
        names = [entry.name for entry in await engine.database.read(queries.get_history, handle.id)]
    assert names == ["note", "Note"]


@workflow(name="books-and-fails")
async def books_and_fails(ctx: Context) -> None:
    await ctx.transaction(Note(), 7, undo=give_back_in_a_step)
    raise ValueError("no")


async def test_a_step_undoes_a_transaction_and_needs_no_connection(database_url):
    async with Engine.open(database_url, [books_and_fails]) as engine:
        with pytest.raises(ValueError, match="no"):
            await (await engine.start(books_and_fails)).result(10)
    assert calls.count(("given back by a step", 7, 7)) == 1


def test_what_cannot_undo_is_refused_where_it_is_given(subtests):
    ctx = Context.__new__(Context)
    for use, told in (
        (lambda: ctx.step(double, 1, undo="refund"), "undo of step double must be a function or a step, got 'refund'"),
        (lambda: ctx.child(notes_parts, undo=5), "undo of child notes-parts must be a function or a step, got 5"),
        (
            lambda: ctx.transaction(Note(), 1, undo=give_back),
            r"undo of transaction Note must be a def undo\(connection, result, …\) or a step, got <function give_back",
        ),
    ):
        with subtests.test(told=told), pytest.raises(DefinitionError, match=told):
            use()
