"""What is decided, cancelled or rejected of one run is so of no other."""

import asyncio

import pytest
from flows import PaymentCaptured, change_quantity
from sqlalchemy import select

from lib_events.testing import wait_until
from lib_workflows import Context, Engine, Principal, RunCancelled, UpdateRejected, workflow
from lib_workflows.runs import commands
from lib_workflows.tables import approvals, event_waits, messages, updates

ANNA = Principal("u1", "anna")


@workflow(name="asks")
async def asks(ctx: Context) -> bool:
    return (await ctx.approval("pay", text="Pay?", to="user:u1")).approved


async def questions(engine):
    found = await engine.database.read(lambda c: c.execute(select(approvals).order_by(approvals.c.run)).all())
    return [row for row in found if row.status]


async def test_of_several_questions_one_is_decided_and_one_is_closed(sqlite_url):
    async with Engine.open(sqlite_url, [asks]) as engine:
        first, second, third = [await engine.start(asks, id=name) for name in ("first", "second", "third")]

        async def asked():
            found = await questions(engine)
            return found if len(found) == 3 else None

        (first_question, *_) = await wait_until(asked)
        await engine.database.transact(lambda c: commands.decide(c, first_question.id, approved=True, by=ANNA))
        assert await first.result(10) is True
        await second.cancel()
        with pytest.raises(RunCancelled):
            await second.result(10)
        assert [row.status for row in await questions(engine)] == ["approved", "expired", "pending"]
        assert [row.decided_by for row in await questions(engine)] == ["u1", None, None]
        assert await third.status() == "waiting"


@workflow(name="answers-one")
async def answers_one(ctx: Context) -> int:
    call = await ctx.wait_update(change_quantity)
    await call.reply(call.value)
    return call.value


async def test_a_run_that_ends_rejects_the_updates_of_nobody_else(sqlite_url):
    async with Engine.open(sqlite_url, [answers_one]) as engine:
        ended, other = await engine.start(answers_one), await engine.start(answers_one)
        await wait_until(lambda: engine.residence.is_quiet)
        await ended.cancel()
        with pytest.raises(RunCancelled):
            await ended.result(10)
    async with Engine.open(sqlite_url, [answers_one], works=False) as engine:
        asked = asyncio.ensure_future(engine.handle(other.id).update(change_quantity, 2, timeout=20))
        await wait_until(lambda: engine.database.read(lambda c: c.execute(select(updates)).all()))
        await engine.handle(ended.id).retry()
        assert len(await engine.database.read(lambda c: c.execute(select(messages)).all())) == 1
        async with asyncio.TaskGroup() as group:
            late = group.create_task(rejected(engine.handle(ended.id).update(change_quantity, 3, timeout=20)))
            await wait_until(lambda: engine.database.read(lambda c: len(c.execute(select(messages)).all()) == 2))
            await engine.database.transact(commands.reject_updates, ended.id, "it has ended", 0)
        assert late.result() == "it has ended"
        assert not asked.done()
        asked.cancel()


async def rejected(asked):
    with pytest.raises(UpdateRejected) as caught:
        await asked
    return caught.value.reason


async def test_a_run_that_has_not_begun_ends_at_once_whatever_others_have_done(sqlite_url):
    async with Engine.open(sqlite_url, [asks, answers_one]) as engine:
        await engine.start(asks, id="asks")
        await wait_until(lambda: questions(engine))
        done = await engine.start(answers_one)
        assert await done.update(change_quantity, 1, timeout=10) == 1
        await done.result(10)
    async with Engine.open(sqlite_url, [asks, answers_one], works=False) as engine:
        await (new := await engine.start(answers_one)).cancel()
        assert await new.status() == "cancelled"
        assert [row.status for row in await questions(engine)] == ["pending"]


@workflow(name="waits-for-money")
async def waits_for_money(ctx: Context) -> None:
    await ctx.wait_event(PaymentCaptured)


@workflow(name="goes-on-once")
async def goes_on_once(ctx: Context, left: int) -> int:
    return await ctx.continue_as_new(left - 1) if left else left


async def test_a_run_that_goes_on_as_new_takes_back_the_waits_of_nobody_else(sqlite_url):
    async with Engine.open(sqlite_url, [waits_for_money, goes_on_once]) as engine:
        await engine.start(waits_for_money)
        waits = await wait_until(lambda: engine.database.read(lambda c: c.execute(select(event_waits)).all()))
        assert await (await engine.start(goes_on_once, 1)).result(10) == 0
        assert await engine.database.read(lambda c: c.execute(select(event_waits)).all()) == waits
