"""What was sent to one life of a run is not taken for what another one asks for, and nobody is told two things."""

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from flows import Order, OrderPlaced, PaymentCaptured, address_changed, calls, change_quantity, double
from sqlalchemy import func, select

from lib_events.event import Event
from lib_events.testing import wait_until
from lib_workflows import (
    Context,
    Engine,
    Principal,
    RunCancelled,
    RunFailed,
    UpdateRejected,
    current_step,
    step,
    workflow,
)
from lib_workflows.errors import StepFailed
from lib_workflows.reading import queries
from lib_workflows.runs import commands
from lib_workflows.tables import approvals, event_waits, messages, runs, updates

ANNA = Principal("u1", "anna")


class Held:
    """Steps wait here until a test lets them go on, or fail."""

    def __init__(self):
        self.close()

    def close(self):
        self.go_on, self.fails = asyncio.Event(), False


held = Held()


@pytest.fixture(autouse=True)
async def _held():
    held.close()
    tickets.clear()


@step
async def something_else() -> str:
    await held.go_on.wait()
    if held.fails:
        raise ConnectionError("it failed")
    return "something else"


@contextlib.asynccontextmanager
async def nothing_arrives(engine):
    """Within the block the engine hears of nothing that comes for its runs, and takes no new ones."""
    arrivals, goes_on = engine.residence.arrivals, asyncio.Event()
    look = arrivals._look

    async def wait_and_look():
        await goes_on.wait()
        await look()

    arrivals._look = wait_and_look
    await wait_until(lambda: arrivals.is_pausing)
    yield
    goes_on.set()


async def until_sent(engine, run_id):
    """Wait until a message lies in the inbox of the run."""
    count = select(func.count()).select_from(messages).where(messages.c.run == run_id)
    await wait_until(lambda: engine.database.read(lambda c: c.scalar(count)))


async def until_life(engine, run_id, number):
    async def begun():
        lives = select(runs.c.earlier_lives).where(runs.c.id == run_id)
        return await engine.database.read(lambda c: c.scalar(lives)) == number

    await wait_until(begun)


async def approvals_of(engine, run_id):
    query = select(approvals.c.status).where(approvals.c.run == run_id).order_by(approvals.c.asked_at)
    return await engine.database.read(lambda c: c.scalars(query).all())


async def open_approval(engine, run_id):
    async def found():
        page = await engine.database.read(lambda c: queries.list_approvals(c, run=run_id, statuses=["pending"]))
        return page.items[0] if page.items else None

    return await wait_until(found)


async def decide(engine, approval, *, approved):
    await engine.database.transact(lambda c: commands.decide(c, approval.id, approved=approved, by=ANNA))


@workflow(name="asks-in-each-life")
async def asks_in_each_life(ctx: Context, lives: int) -> bool:
    first, answer = await ctx.race(
        ctx.approval("pay", text=f"Pay? {lives} lives to come", to="user:u1"), ctx.step(something_else)
    )
    if lives and first == 1:
        await ctx.continue_as_new(lives - 1)
    return answer.approved


async def test_a_decision_of_one_life_does_not_answer_what_the_next_life_asks(database_url):
    async with Engine.open(database_url, [asks_in_each_life]) as engine:
        handle = await engine.start(asks_in_each_life, 1)
        approval = await open_approval(engine, handle.id)
        async with nothing_arrives(engine):
            await decide(engine, approval, approved=True)
            held.go_on.set()
            await until_life(engine, handle.id, 1)
            held.close()
        second = await open_approval(engine, handle.id)
        assert second.id != approval.id
        await decide(engine, second, approved=False)
        assert await handle.result(10) is False
        assert await approvals_of(engine, handle.id) == ["approved", "rejected"]


@workflow(name="asks-for-an-hour")
async def asks_for_an_hour(ctx: Context) -> bool:
    return (await ctx.approval("pay", text="Pay?", to="user:u1", timeout=timedelta(hours=1))).approved


async def test_a_decision_that_comes_in_time_counts_although_the_run_hears_of_it_later(database_url):
    async with Engine.open(database_url, [asks_for_an_hour]) as engine:
        handle = await engine.start(asks_for_an_hour)
        approval = await open_approval(engine, handle.id)
        await wait_until(lambda: engine.residence.is_quiet)
        executor = engine.residence.executors[handle.id]
        async with nothing_arrives(engine):
            await decide(engine, approval, approved=True)
            executor.deadlines["1"].callback()  # the hour is over
            await wait_until(lambda: executor.running)
            await wait_until(lambda: not executor.running)
        assert await handle.result(10) is True


@workflow(name="asks-and-fails")
async def asks_and_fails(ctx: Context) -> bool:
    answer, _ = await ctx.gather(ctx.approval("pay", text="Pay?", to="user:u1"), ctx.step(something_else))
    return answer.approved


async def test_a_decision_that_came_too_late_does_not_answer_what_a_retry_asks(database_url):
    async with Engine.open(database_url, [asks_and_fails]) as engine:
        handle = await engine.start(asks_and_fails)
        approval = await open_approval(engine, handle.id)
        async with nothing_arrives(engine):
            await decide(engine, approval, approved=True)
            held.fails = True
            held.go_on.set()
            with pytest.raises(StepFailed):
                await handle.result(10)
            held.fails = False
            await handle.retry()
        await decide(engine, await open_approval(engine, handle.id), approved=False)
        assert await handle.result(10) is False
        assert await approvals_of(engine, handle.id) == ["approved", "rejected"]


@dataclass
class Awaits:
    order: str
    then: str


@workflow(name="awaits-one-then-another")
async def awaits_one_then_another(ctx: Context, awaits: Awaits) -> list[str | int]:
    kind = OrderPlaced if awaits.then else PaymentCaptured
    first, found = await ctx.race(ctx.wait_event(kind, {"id": awaits.order}), ctx.step(something_else))
    if awaits.then and first == 1:
        await ctx.continue_as_new(Awaits(awaits.then, ""))
    return [found.id, found.amount]


@pytest.mark.parametrize("then", ["two", "one"], ids=["another order", "another type"])
async def test_an_event_of_one_life_is_not_taken_for_what_the_next_life_awaits(database_url, then):
    async with Engine.open(database_url, [awaits_one_then_another]) as engine:
        handle = await engine.start(awaits_one_then_another, Awaits("one", then))
        await wait_until(lambda: registered(engine, handle.id))
        async with nothing_arrives(engine):
            await publish(engine, OrderPlaced, "one", 1)
            await until_sent(engine, handle.id)
            held.go_on.set()
            await until_life(engine, handle.id, 1)
            held.close()
        await wait_until(lambda: registered(engine, handle.id))
        await publish(engine, PaymentCaptured, then, 2)
        assert await handle.result(10) == [then, 2]


async def registered(engine, run_id):
    waits = select(func.count()).select_from(event_waits).where(event_waits.c.run == run_id)
    return await engine.database.read(lambda c: c.scalar(waits))


async def publish(engine, kind, order, amount):
    event = Event.of(kind, Order(id=order, amount=amount), source="/shop")
    await engine.database.transact(lambda connection: connection.publish(event))


@workflow(name="fails-at-first")
async def fails_at_first(ctx: Context) -> str:
    return await ctx.step(something_else)


async def test_a_cancellation_that_came_too_late_does_not_cancel_the_retry(database_url):
    async with Engine.open(database_url, [fails_at_first]) as engine:
        handle = await engine.start(fails_at_first)
        async with nothing_arrives(engine):
            await handle.cancel()
            held.fails = True
            held.go_on.set()
            with pytest.raises(StepFailed):
                await handle.result(10)
            held.fails = False
            await handle.retry()
        assert await handle.result(10) == "something else"


async def test_a_retry_takes_nothing_from_the_inbox_of_another_run_and_keeps_a_deadline_that_is_to_come(sqlite_url):
    async with Engine.open(sqlite_url, [fails_at_first]) as engine:
        held.fails = True
        held.go_on.set()
        handle = await engine.start(fails_at_first, deadline=datetime.now(UTC) + timedelta(hours=1))
        with pytest.raises(StepFailed):
            await handle.result(10)
    async with Engine.open(sqlite_url, [fails_at_first], works=False) as engine:
        other = await engine.start(fails_at_first)
        await engine.database.transact(lambda c: commands.send_update(c, other.id, "quantity", "1", update_id="u"))
        await engine.handle(handle.id).retry()
        await until_sent(engine, other.id)
        deadline = select(runs.c.deadline_at).where(runs.c.id == handle.id)
        assert await engine.database.read(lambda c: c.scalar(deadline)) is not None


async def test_a_retry_goes_on_without_the_deadline_that_it_has_missed(database_url):
    async with Engine.open(database_url, [fails_at_first]) as engine:
        soon = datetime.now(UTC) + timedelta(milliseconds=50)
        handle = await engine.start(fails_at_first, deadline=soon)
        with pytest.raises(RunFailed, match="DeadlineExceeded"):
            await handle.result(10)
        held.go_on.set()
        await handle.retry()
        assert await handle.result(10) == "something else"


@workflow(name="takes-updates")
async def takes_updates(ctx: Context, lives: int) -> list[int]:
    taken = []
    for _ in range(2):
        call = await ctx.wait_update(change_quantity)
        taken.append(call.value)
        await ctx.step(something_else)
        if lives:
            await ctx.continue_as_new(lives - 1)
        await call.reply(call.value)
    return taken


async def outcome_of(asked):
    try:
        return await asked
    except UpdateRejected as error:
        return str(error.reason)


async def until_steps(engine, run_id):
    await wait_until(lambda: (found := engine.residence.executors.get(run_id)) is not None and found.running)


async def test_an_update_that_a_life_has_taken_and_not_answered_is_rejected_when_it_ends(database_url):
    async with Engine.open(database_url, [takes_updates]) as engine:
        handle = await engine.start(takes_updates, 1)
        first = asyncio.ensure_future(outcome_of(handle.update(change_quantity, 1, timeout=20)))
        await until_steps(engine, handle.id)
        second = asyncio.ensure_future(outcome_of(handle.update(change_quantity, 2, timeout=20)))
        await wait_until(lambda: engine.residence.executors[handle.id].mailbox)
        held.go_on.set()
        assert await first == "the run has continued as new"
        assert await second == 2
        assert await outcome_of(handle.update(change_quantity, 3, timeout=20)) == 3
        assert await handle.result(10) == [2, 3]


async def test_an_update_that_was_rejected_because_its_run_ended_is_not_answered_by_a_retry(database_url):
    async with Engine.open(database_url, [takes_updates]) as engine:
        handle = await engine.start(takes_updates, 0)
        taken = asyncio.ensure_future(outcome_of(handle.update(change_quantity, 1, timeout=20)))
        await until_steps(engine, handle.id)
        unread = asyncio.ensure_future(outcome_of(handle.update(change_quantity, 2, timeout=20)))
        await wait_until(lambda: engine.residence.executors[handle.id].mailbox)
        held.fails = True
        held.go_on.set()
        assert [await taken, await unread] == ["the run has failed"] * 2
        held.fails = False
        await handle.retry()
        assert await outcome_of(handle.update(change_quantity, 3, timeout=20)) == 3
        assert await handle.result(10) == [1, 3]
        statuses = select(updates.c.status).where(updates.c.run == handle.id).order_by(updates.c.sent_at)
        found = await engine.database.read(lambda c: c.scalars(statuses).all())
        assert found == ["rejected", "rejected", "completed"]


@workflow(name="answers-slowly")
async def answers_slowly(ctx: Context) -> int:
    call = await ctx.wait_update(change_quantity)
    await ctx.step(double, call.value)
    await ctx.wait_signal(address_changed)
    await call.reply(call.value)
    return call.value


async def test_a_fork_does_not_answer_what_another_run_was_asked(database_url):
    async with Engine.open(database_url, [answers_slowly]) as engine:
        handle = await engine.start(answers_slowly)
        asked = asyncio.ensure_future(outcome_of(handle.update(change_quantity, 1, timeout=20)))
        await wait_until(lambda: engine.database.read(lambda c: len(queries.get_history(c, handle.id)) == 2))
        forked = await handle.fork("2")
        await forked.signal(address_changed, "there")
        assert await forked.result(10) == 1
        await handle.cancel()
        assert await asked == "the run has cancelled"


@step
async def tells() -> None:
    calls.append(("tells",))


@workflow(name="tells-at-once")
async def tells_at_once(ctx: Context) -> None:
    await ctx.step(tells)
    await ctx.step(something_else)


async def test_a_run_that_is_cancelled_while_nobody_has_it_begins_nothing_more(database_url):
    async with Engine.open(database_url, [tells_at_once]) as engine:
        held.fails = True
        held.go_on.set()
        handle = await engine.start(tells_at_once)
        with pytest.raises(StepFailed):
            await handle.result(10)
        forked = await handle.fork("1")
        with pytest.raises(StepFailed):
            await forked.result(10)
    async with Engine.open(database_url, [tells_at_once], works=False) as engine:
        again = [engine.handle(handle.id), await engine.handle(handle.id).fork("2")]
        await again[0].retry()
        for run in again:
            await run.cancel()
    held.close()
    calls.clear()
    async with Engine.open(database_url, [tells_at_once]) as engine:
        for run in again:
            with pytest.raises(RunCancelled):
                await engine.handle(run.id).result(10)
            rows = await engine.database.read(queries.get_history, run.id)
            assert "cancel" in [row.kind for row in rows]
            assert [row for row in rows if row.name == something_else.name and row.input] == []
    assert not calls


async def test_a_run_that_is_late_before_it_begins_does_nothing(database_url):
    async with Engine.open(database_url, [tells_at_once], works=False) as engine:
        handle = await engine.start(tells_at_once, deadline=datetime.now(UTC))
    async with Engine.open(database_url, [tells_at_once]) as engine:
        with pytest.raises(RunFailed, match="DeadlineExceeded"):
            await engine.handle(handle.id).result(10)
    assert not calls


tickets: dict[str, asyncio.Event] = {}  # by run: set once it may go on


@step
async def waits_for_its_ticket() -> str:
    run_id = current_step().run_id
    if held.fails:
        raise ConnectionError("it failed")
    await tickets.setdefault(run_id, asyncio.Event()).wait()
    return run_id


@workflow(name="may-fail")
async def may_fail(ctx: Context) -> str:
    return await ctx.step(waits_for_its_ticket)


@workflow(name="has-a-child")
async def has_a_child(ctx: Context) -> str:
    return await ctx.child(may_fail)


async def test_a_child_of_one_life_does_not_answer_for_that_of_the_next(database_url):
    """Both are tried again, and the one for which nobody waits any more is done first."""
    children = select(runs.c.id).where(runs.c.parent.is_not(None)).order_by(runs.c.created_at)
    async with Engine.open(database_url, [has_a_child, may_fail]) as engine:
        held.fails = True
        handle = await engine.start(has_a_child)
        with pytest.raises(StepFailed):
            await handle.result(10)
        held.fails = False
        await handle.retry()
        await wait_until(lambda: len(tickets) == 1)
        first, second = await engine.database.read(lambda c: c.scalars(children).all())
        await engine.handle(first).retry()
        await wait_until(lambda: len(tickets) == 2)
        tickets[first].set()
        assert await engine.handle(first, may_fail).result(10) == first
        tickets[second].set()
        assert await handle.result(10) == second


@workflow(name="does-its-part")
async def does_its_part(ctx: Context, life: int) -> str:
    return await ctx.step(something_else) if life == 0 else "its own"


@workflow(name="has-a-child-in-each-life")
async def has_a_child_in_each_life(ctx: Context, life: int) -> str:
    await ctx.wait_signal(address_changed)
    with contextlib.suppress(StepFailed):
        part = await ctx.child(does_its_part, life)
    if life == 0:
        await ctx.wait_signal(address_changed)
        await ctx.continue_as_new(1)
    return part


async def test_a_child_of_an_earlier_life_that_is_retried_is_not_taken_for_the_one_of_the_next(database_url):
    held.fails = True
    held.go_on.set()
    async with Engine.open(database_url, [has_a_child_in_each_life, does_its_part]) as engine:
        parent = await engine.start(has_a_child_in_each_life, 0, id="parent")
        await parent.signal(address_changed, "begin")
        failed = queries.RunFilter(parent=parent.id, statuses=["failed"])
        found = await wait_until(lambda: engine.database.read(lambda c: queries.list_run_ids(c, failed)))
        held.close()
        child = engine.handle(found[0], does_its_part)
        await child.retry()
        await wait_until(lambda: child.id in engine.residence.executors)
        await parent.signal(address_changed, "go on as new")
        await wait_until(lambda: is_in_life(engine, parent.id, 1))
        held.go_on.set()
        assert await child.result(10) == "something else"
        await parent.signal(address_changed, "begin")
        assert await parent.result(10) == "its own"


async def is_in_life(engine, run_id, life):
    run = await engine.database.read(queries.get_run, run_id)
    return (run.status, run.input) == ("waiting", life)
