import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

import flows
import pytest
from flows import Order, address_changed, change_quantity, doubling, everything, forever, on_order
from sqlalchemy import update

from lib_events.database import CommitFailed
from lib_events.event import Event
from lib_events.event_log import read_after
from lib_events.testing import wait_until
from lib_workflows import (
    Context,
    Engine,
    EventType,
    Principal,
    RunCancelled,
    RunConflict,
    RunFailed,
    StepFailed,
    UpdateRejected,
    WaitTimeout,
    step,
    workflow,
)
from lib_workflows.errors import EngineStopped
from lib_workflows.reading import queries
from lib_workflows.runs import commands, rewind
from lib_workflows.tables import history

ALL = [doubling, everything, forever, on_order]


@pytest.fixture
async def engine(database_url):
    async with Engine.open(database_url, ALL) as engine:
        await engine.database.transact(flows.make_stock)
        yield engine


async def pending_approval(engine, run_id):
    async def find():
        page = await engine.database.read(lambda c: queries.list_approvals(c, run=run_id, statuses=["pending"]))
        return page.items

    return (await wait_until(find))[0]


async def decide(engine, approval_id, *, approved=True):
    by = Principal("u1", "mia", ("manager",))
    await engine.database.transact(
        lambda c: commands.decide(c, approval_id, approved=approved, by=by, comment="fine", form={"a": 1})
    )


async def waiting_for(engine, handle, kind):
    async def waits():
        run = await engine.database.read(queries.get_run, handle.id)
        return run.status == "waiting" and any(entry["kind"] == kind for entry in run.waiting_for)

    await wait_until(waits)


async def history_of(engine, run_id):
    return await engine.database.read(queries.get_history, run_id)


async def test_a_workflow_returns_its_result(engine):
    handle = await engine.start(doubling, 21)
    assert await handle.result(10) == 42
    run = await engine.database.read(queries.get_run, handle.id)
    assert (run.status, run.input, run.output) == ("completed", 21, 42)
    assert [(e.operation, e.kind, e.name, e.status) for e in await history_of(engine, handle.id)] == [
        ("1", "step", "double", "completed")
    ]


async def test_every_operation_works(engine):
    handle = await engine.start(everything, Order(id="o1", amount=7))
    await handle.signal(address_changed, "Elm Street")
    approval = await pending_approval(engine, handle.id)
    assert (approval.to, approval.about, approval.name) == ("role:manager", {"order": "o1"}, "ship")
    await decide(engine, approval.id)
    result = await handle.result(10)
    del result["uuid"]
    assert result == {
        "receipt": 7,
        "held": 7,
        "threaded": 8,
        "address": "Elm Street",
        "children": [0, 2, 4],
        "race": [1, 42],
    }
    assert await handle.view("status") == {"address": "Elm Street"}
    assert await engine.database.read(flows.stock_of, handle.id) == [-7]
    kinds = {entry.kind for entry in await history_of(engine, handle.id)}
    assert kinds == {
        "step", "transaction", "sleep", "approval", "wait_signal", "child", "race", "publish", "view"
    }  # fmt: skip


async def test_a_failure_undoes_in_reverse_order(engine):
    handle = await engine.start(everything, Order(id="o1", amount=7))
    await handle.signal(address_changed, "Elm Street")
    await decide(engine, (await pending_approval(engine, handle.id)).id, approved=False)
    with pytest.raises(flows.CardDeclined) as caught:
        await handle.result(10)
    assert (caught.value.code, caught.value.limit) == ("not approved", 0)
    undone = [entry.operation for entry in await history_of(engine, handle.id) if entry.kind == "undo"]
    assert undone == ["2/undo", "1/undo"]
    assert await engine.database.read(flows.stock_of, handle.id) == [-7, 7]
    assert ("refund", flows.Receipt("o1", 7), "o1") in flows.calls


async def test_a_declared_error_is_a_result(engine):
    handle = await engine.start(everything, Order(id="o1", amount=700))
    with pytest.raises(flows.CardDeclined, match="declined: limit") as caught:
        await handle.result(10)
    assert caught.value.limit == 100
    assert isinstance(caught.value.__cause__, RunFailed)
    assert not [entry for entry in await history_of(engine, handle.id) if entry.kind == "undo"]


async def test_a_cancelled_run_is_undone(engine):
    handle = await engine.start(forever)
    await waiting_for(engine, handle, "wait_signal")
    await handle.cancel("changed my mind")
    with pytest.raises(RunCancelled, match="changed my mind"):
        await handle.result(10)
    assert await handle.status() == "cancelled"
    kinds = [entry.kind for entry in await history_of(engine, handle.id)]
    assert kinds == ["step", "transaction", "cancel", "undoing", "undo", "undo"]
    assert await engine.database.read(flows.stock_of, handle.id) == [-1, 1]


async def test_a_cancellation_reaches_steps_and_children(database_url):
    stopped = []

    @step
    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.append("endless")
            raise

    @workflow(name="inner")
    async def inner(ctx: Context) -> None:
        await ctx.step(endless)

    @workflow(name="outer")
    async def outer(ctx: Context) -> None:
        await ctx.gather(ctx.child(inner), ctx.step(endless))

    async with Engine.open(database_url, [inner, outer]) as engine:
        handle = await engine.start(outer)
        child_runs = await wait_until(lambda: _children(engine, handle.id))

        async def both_begun():
            events = [e.operation for e in await history_of(engine, handle.id)]
            return events == [] and len(engine.residence.executors) == 2

        await wait_until(both_begun)
        await handle.cancel()
        with pytest.raises(RunCancelled):
            await handle.result(10)
        assert stopped == ["endless", "endless"]
        child = await engine.database.read(queries.get_run, child_runs[0].id)
        assert child.status == "cancelled"


async def _children(engine, run_id):
    page = await engine.database.read(queries.list_runs, queries.RunFilter(parent=run_id))
    return page.items


async def test_the_same_id_workflow_and_input_is_the_same_run(engine):
    one = await engine.start(doubling, 4, id="four")
    two = await engine.start(doubling, 4, id="four")
    assert await one.result(10) == await two.result(10) == 8
    assert flows.calls == [("double", 4)]
    with pytest.raises(RunConflict):
        await engine.start(doubling, 5, id="four")
    with pytest.raises(RunConflict):
        await engine.start(forever, id="four")


async def test_an_idempotency_key_belongs_to_a_principal(engine):
    anna, bob = Principal("anna"), Principal("bob")
    one = await engine.start(doubling, 4, principal=anna, idempotency_key="k")
    assert (await engine.start(doubling, 4, principal=anna, idempotency_key="k")).id == one.id
    assert (await engine.start(doubling, 4, principal=bob, idempotency_key="k")).id != one.id
    with pytest.raises(RunConflict, match="idempotency key"):
        await engine.start(doubling, 5, principal=anna, idempotency_key="k")


async def test_many_runs_start_in_one_commit(engine):
    handles = await engine.start_many(doubling, range(200))
    assert await asyncio.gather(*(handle.result(20) for handle in handles)) == [n * 2 for n in range(200)]


async def test_a_signal_sent_before_the_wait_is_kept(engine):
    handle = await engine.start(forever, id="kept")
    await handle.signal(address_changed, "first")
    assert await handle.result(10) == "first"


async def publish(engine, event_type, payload, *, event_id=None):
    event = Event.of(event_type, payload, source="/shop", id=event_id)
    await engine.database.transact(lambda connection: connection.publish(event))
    return event


async def test_an_event_starts_exactly_one_run_which_waits_for_another(engine):
    await publish(engine, flows.OrderPlaced, Order(id="a", amount=1))
    run = (await wait_until(lambda: _runs(engine, "on-order")))[0]
    await publish(engine, flows.PaymentCaptured, Order(id="other", amount=2))
    await publish(engine, flows.PaymentCaptured, Order(id="a", amount=3))
    assert await engine.handle(run.id).result(10) == "a paid 3"
    assert len(await _runs(engine, "on-order")) == 1


async def _runs(engine, name):
    return (await engine.database.read(queries.list_runs, queries.RunFilter(workflow=name))).items


async def test_wait_event_looks_back_to_the_event_that_started_the_run(engine):
    await publish(engine, flows.PaymentCaptured, Order(id="a", amount=1))
    await publish(engine, flows.OrderPlaced, Order(id="a", amount=1))
    await publish(engine, flows.PaymentCaptured, Order(id="a", amount=2))
    run = (await wait_until(lambda: _runs(engine, "on-order")))[0]
    assert await engine.handle(run.id).result(10) == "a paid 2"


async def test_a_run_gets_each_event_once_per_type_and_match(database_url):
    @workflow(name="collect")
    async def collect(ctx: Context) -> list[int]:
        await ctx.wait_signal(address_changed)
        return [(await ctx.wait_event(flows.PaymentCaptured, {"id": "a"})).amount for _ in range(3)]

    async with Engine.open(database_url, [collect]) as engine:
        handle = await engine.start(collect)
        await publish(engine, flows.PaymentCaptured, Order(id="a", amount=1))
        await publish(engine, flows.PaymentCaptured, Order(id="b", amount=9))
        await publish(engine, flows.PaymentCaptured, Order(id="a", amount=2))
        await handle.signal(address_changed, "go")
        await waiting_for(engine, handle, "wait_event")
        await publish(engine, flows.PaymentCaptured, Order(id="a", amount=3))
        assert await handle.result(10) == [1, 2, 3]


async def test_waits_end_by_their_timeout(database_url):
    @workflow(name="impatient")
    async def impatient(ctx: Context) -> list[str]:
        late = []
        for wait in (
            ctx.wait_signal(address_changed, timeout=0.01),
            ctx.wait_event(flows.PaymentCaptured, {"id": "x"}, timeout=0.01),
            ctx.wait_update(change_quantity, timeout=0.01),
            ctx.approval("a", text="?", to="user:u1", timeout=0.01),
        ):
            try:
                await wait
            except WaitTimeout as error:
                late.append(error.what)
        try:
            async with ctx.timeout(0.01):
                await ctx.sleep(60)
        except TimeoutError:
            late.append("block")
        return late

    async with Engine.open(database_url, [impatient]) as engine:
        handle = await engine.start(impatient)
        assert await handle.result(10) == [
            "wait_signal address-changed", "wait_event payment.captured", "wait_update change-quantity",
            "approval a", "block",
        ]  # fmt: skip
        page = await engine.database.read(lambda c: queries.list_approvals(c, run=handle.id))
        assert [approval.status for approval in page.items] == ["expired"]
        with pytest.raises(commands.ApprovalDecided):
            await decide(engine, page.items[0].id)


async def test_an_update_is_answered_or_rejected(database_url):
    @workflow(name="counter")
    async def counter(ctx: Context) -> int:
        total = 0
        while total < 10:
            call = await ctx.wait_update(change_quantity)
            if call.value < 0:
                await call.reject("must not be negative")
            else:
                total += call.value
                await call.reply(total)
        return total

    async with Engine.open(database_url, [counter]) as engine:
        handle = await engine.start(counter)
        assert await handle.update(change_quantity, 3, timeout=10) == 3
        with pytest.raises(UpdateRejected, match="negative"):
            await handle.update(change_quantity, -1, timeout=10)
        assert await handle.update(change_quantity, 8, timeout=10) == 11
        assert await handle.result(10) == 11


async def test_a_step_is_retried_then_fails_for_good(database_url):
    attempts = []

    @step(retries=2, backoff=flows.FAST)
    async def flaky(fail_times: int) -> int:
        from lib_workflows import current_step

        attempts.append((current_step().attempt, current_step().idempotency_key))
        if len(attempts) <= fail_times:
            raise ConnectionError("away")
        return len(attempts)

    @workflow(name="patient")
    async def patient(ctx: Context, fail_times: int) -> int:
        return await ctx.step(flaky, fail_times)

    async with Engine.open(database_url, [patient]) as engine:
        handle = await engine.start(patient, 2)
        assert await handle.result(10) == 3
        assert attempts == [(n, f"{handle.id}:1") for n in (1, 2, 3)]
        assert [e.attempt for e in await history_of(engine, handle.id)] == [3]
        attempts.clear()
        handle = await engine.start(patient, 5)
        with pytest.raises(StepFailed, match="ConnectionError: away") as caught:
            await handle.result(10)
        assert caught.value.attempts == 3
        assert "ConnectionError" in caught.value.error.stack


async def test_a_failing_branch_cancels_and_awaits_its_siblings(database_url):
    ended = []

    @step
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("slow")

    @workflow(name="siblings")
    async def siblings(ctx: Context) -> str:
        try:
            await ctx.gather(ctx.step(slow), ctx.step(flows.charge, Order(id="x", amount=500)))
        except flows.CardDeclined as error:
            return f"{error} {ended}"
        return "no"

    async with Engine.open(database_url, [siblings]) as engine:
        handle = await engine.start(siblings)
        assert await handle.result(10) == "declined: limit ['slow']"
        rows = [(e.operation, e.status) for e in await history_of(engine, handle.id)]
        assert rows == [("1/2/1", "failed"), ("1/1/1", "cancelled")]


async def test_every_event_of_a_run_carries_principal_and_correlation(engine):
    from lib_events.event_log import read_after

    handle = await engine.start(everything, Order(id="o1", amount=7), principal=Principal("anna", "Anna"))
    await handle.signal(address_changed, "x")
    await decide(engine, (await pending_approval(engine, handle.id)).id)
    await handle.result(10)

    async def completed():
        page = await engine.database.read(lambda c: read_after(c, 0, limit=5000))
        found = [placed.event for placed in page.events]
        return found if any(e.type == "evs.run.completed" and e.subject == handle.id for e in found) else None

    events = [e for e in await wait_until(completed) if e.source == engine.database.source]
    assert {e.extensions["principal"] for e in events} == {"anna"}
    assert {e.extensions["correlationid"] for e in events} == {handle.id}
    decided = next(e for e in events if e.type == "evs.approval.decided")
    assert decided.data == {
        "approval": decided.subject, "run": handle.id, "workflow": "everything", "name": "ship", "approved": True,
        "by": "u1", "by_name": "mia", "by_roles": ["manager"], "comment": "fine", "form": {"a": 1},
        "about": {"order": "o1"},
    }  # fmt: skip
    types = {e.type for e in events}
    assert {"evs.run.started", "evs.step.started", "evs.step.completed", "evs.run.waiting", "evs.run.resumed"} <= types


async def test_a_second_decision_is_refused(engine):
    handle = await engine.start(everything, Order(id="o1", amount=7))
    approval = await pending_approval(engine, handle.id)
    await decide(engine, approval.id)
    with pytest.raises(commands.ApprovalDecided) as caught:
        await decide(engine, approval.id, approved=False)
    assert caught.value.status == "approved"


async def test_idle_runs_leave_memory_and_come_back(database_url):
    from lib_workflows.workers.limits import Limits

    async with Engine.open(database_url, [forever, doubling], limits=Limits(idle_seconds=0)) as engine:
        await engine.database.transact(flows.make_stock)
        handle = await engine.start(forever)
        await waiting_for(engine, handle, "wait_signal")

        def gone():
            engine.residence.evict_idle()
            return handle.id not in engine.residence.executors

        await wait_until(gone)
        result = asyncio.ensure_future(handle.result(10))
        await handle.signal(address_changed, "back")
        assert await result == "back"
        assert await engine.database.read(flows.stock_of, handle.id) == [-1]


async def test_retry_keeps_what_succeeded(database_url):
    state = {"broken": True}
    ran = []

    @step
    async def first() -> int:
        ran.append("first")
        return 1

    @step
    async def second() -> int:
        ran.append("second")
        if state["broken"]:
            raise RuntimeError("broken")
        return 2

    @workflow(name="mended")
    async def mended(ctx: Context) -> int:
        return await ctx.step(first) + await ctx.step(second)

    async with Engine.open(database_url, [mended]) as engine:
        handle = await engine.start(mended)
        with pytest.raises(StepFailed):
            await handle.result(10)
        state["broken"] = False
        await engine.database.transact(rewind.retry, handle.id)
        await wait_until(lambda: _has_status(engine, handle.id, "completed"))
        assert await handle.result(10) == 3
        assert ran == ["first", "second", "second"]
        forked = await engine.database.transact(lambda c: rewind.fork(c, handle.id, from_operation="2"))
        assert await engine.handle(forked).result(10) == 3
        assert ran == ["first", "second", "second", "second"]


async def test_what_a_retry_asks_for_again_is_new_outside_too(database_url):
    said = EventType("test.said", int)
    state = {"broken": True}

    @workflow(name="fragile-child")
    async def fragile_child(ctx: Context) -> int:
        if state["broken"]:
            raise RuntimeError("broken")
        return 7

    @step
    async def fragile() -> int:
        if state["broken"]:
            raise RuntimeError("broken")
        return 1

    @workflow(name="asking")
    async def asking(ctx: Context) -> int:
        with contextlib.suppress(StepFailed):
            await ctx.step(fragile)
        await ctx.publish(said, 1)
        await ctx.approval("go", text="Go on?", to="role:manager")
        return await ctx.child(fragile_child)

    async with Engine.open(database_url, [asking, fragile_child]) as engine:
        handle = await engine.start(asking)
        first = await pending_approval(engine, handle.id)
        await decide(engine, first.id)
        await wait_until(lambda: _has_status(engine, handle.id, "failed"))
        state["broken"] = False
        # The whole history goes, from the first failure on.
        await engine.database.transact(_set_all_aside, handle.id)
        await engine.database.transact(rewind.retry, handle.id)
        second = await pending_approval(engine, handle.id)
        assert second.id != first.id
        await decide(engine, second.id)
        await wait_until(lambda: _has_status(engine, handle.id, "completed"))
        page = await engine.database.read(lambda connection: read_after(connection, 0, types=["test.said"]))
        assert len({placed.event.id for placed in page.events}) == 2
        page = await engine.database.read(queries.list_runs)
        assert sorted(run.status for run in page.items if run.parent == handle.id) == ["completed", "failed"]


def _set_all_aside(connection, run_id):
    mine = (history.c.run == run_id) & (history.c.voided == 0)
    connection.execute(update(history).where(mine).values(voided=1))


async def _has_status(engine, run_id, status):
    return (await engine.database.read(queries.get_run, run_id)).status == status


async def test_asyncio_in_a_workflow_fails_with_the_line_and_the_way_out(database_url):
    @workflow(name="wrong")
    async def wrong(ctx: Context) -> None:
        await asyncio.sleep(1)

    async with Engine.open(database_url, [wrong]) as engine:
        handle = await engine.start(wrong)
        with pytest.raises(Exception, match=r"asyncio \(sleep\) at .*test_engine.py:\d+ in wrong; use await ctx.sleep"):
            await handle.result(10)


async def test_a_delayed_run_begins_when_its_time_has_come(database_url):
    begun = []

    @step
    async def note() -> None:
        begun.append(True)

    @workflow(name="later")
    async def later(ctx: Context) -> float:
        await ctx.step(note)
        return ctx.now().timestamp()

    async with Engine.open(database_url, [later]) as engine:
        handle = await engine.start(later, delay=timedelta(milliseconds=300))
        assert await handle.status() == "queued"
        assert not begun
        created = (await engine.database.read(queries.get_run, handle.id)).created_at
        assert await handle.result(10) - created.timestamp() >= 0.3


async def test_a_run_that_misses_its_deadline_is_undone_and_fails(engine):
    deadline = datetime.now(UTC) + timedelta(milliseconds=400)
    handle = await engine.start(forever, deadline=deadline)
    with pytest.raises(RunFailed, match="DeadlineExceeded"):
        await handle.result(10)
    assert await handle.status() == "failed"
    assert await engine.database.read(flows.stock_of, handle.id) == [-1, 1]


async def test_closing_the_engine_lets_a_running_step_end_and_begins_nothing_new(database_url):
    ran, proceed = [], asyncio.Event()

    @step
    async def first() -> None:
        ran.append("first")
        await proceed.wait()

    @step
    async def second() -> None:
        ran.append("second")

    @workflow(name="drained")
    async def drained(ctx: Context) -> str:
        await ctx.step(first)
        await ctx.step(second)
        return "done"

    async with Engine.open(database_url, [drained]) as engine:
        await engine.start(drained, id="drained")
        await wait_until(lambda: ran)

        async def proceed_once_it_closes(residence=engine.residence):
            await wait_until(lambda: residence.is_draining)
            proceed.set()

        proceeding = asyncio.create_task(proceed_once_it_closes())
    await proceeding
    assert ran == ["first"]
    with pytest.raises(EngineStopped):
        await engine.start(drained)
    async with Engine.open(database_url, [drained]) as engine:
        assert await engine.handle("drained", drained).result(10) == "done"
    assert ran == ["first", "second"]


async def test_a_run_whose_commit_failed_is_loaded_again_and_goes_on(database_url):
    @workflow(name="unlucky")
    async def unlucky(ctx: Context) -> str:
        return await ctx.wait_signal(address_changed)

    async with Engine.open(database_url, [unlucky]) as engine:
        handle = await engine.start(unlucky)
        await waiting_for(engine, handle, "wait_signal")
        executor = engine.residence.executors[handle.id]
        engine.residence.run_lost(executor, CommitFailed("the disk is full"))
        await handle.signal(address_changed, "went on")
        assert await handle.result(10) == "went on"
