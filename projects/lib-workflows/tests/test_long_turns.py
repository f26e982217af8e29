"""A run that has very much to do at once leaves the others their turn, and what it is sent costs the same each time."""

import itertools

import pytest
from flows import address_changed, doubling
from sqlalchemy import insert

from lib_workflows import Context, Engine, RunCancelled, Signal, workflow
from lib_workflows.execution.mailbox import Mailbox
from lib_workflows.runs import commands
from lib_workflows.runs.record import Message
from lib_workflows.tables import messages

begin = Signal("begin", str)
LETTERS = 20_000


@workflow(name="shows-for-ever")
async def show_for_ever(ctx: Context) -> None:
    """Ask for what ends at once, each time."""
    for number in itertools.count():
        await ctx.set_view("number", number)


async def test_a_run_that_never_comes_to_rest_leaves_others_their_turn_and_can_be_cancelled(database_url):
    async with Engine.open(database_url, [show_for_ever, doubling]) as engine:
        run = await engine.start(show_for_ever)
        assert await (await engine.start(doubling, 4)).result(30) == 8
        assert await run.view("number") > 0
        await run.cancel()
        with pytest.raises(RunCancelled):
            await run.result(60)


@workflow(name="reads-its-letters")
async def read_letters(ctx: Context) -> list[str]:
    await ctx.wait_signal(begin)
    letters = [await ctx.wait_signal(address_changed) for _ in range(LETTERS)]
    return [letters[0], letters[-1]]


async def test_thousands_of_signals_to_one_run_are_taken_in_their_order(database_url):
    async with Engine.open(database_url, [read_letters, doubling]) as engine:
        run = await engine.start(read_letters)
        for numbers in itertools.batched(range(LETTERS), 2_000, strict=False):
            await engine.database.transact(send, run.id, numbers)
        await run.signal(begin, "now")
        assert await run.result(60) == ["letter 0", f"letter {LETTERS - 1}"]


def send(connection, run_id, numbers):
    """What so many commands would do, at the price of one."""
    last = commands.wake_all(connection, [run_id], len(numbers))[run_id]
    both = {"run": run_id, "kind": "signal", "name": address_changed.name, "sent_at": 0}
    at = range(last - len(numbers) + 1, last + 1)
    rows = [both | {"number": n, "payload": f'"letter {text}"'} for n, text in zip(at, numbers, strict=True)]
    connection.execute(insert(messages), rows)


def test_what_is_given_back_is_taken_before_what_came_later():
    mailbox = Mailbox()
    for number in (3, 5, 4, 1):
        mailbox.keep(Message(number, "signal", "letter", None, None))
    mailbox.keep(Message(2, "update", "letter", None, None))
    taken = [mailbox.take("signal", "letter") for _ in range(5)]
    assert [message and message.number for message in taken] == [1, 3, 4, 5, None]
    assert len(mailbox) == 1
    assert mailbox.take("update", "letter").number == 2
    assert not mailbox
