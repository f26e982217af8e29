"""Queues with limits: pauses, runs under way at most, runs that begin in a time; several workers, crashes, new code."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import BaseModel
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import func, select

from lib_events.clock import SystemClock
from lib_events.lifecycle import running
from lib_events.tables import events
from lib_events.testing import wait_until
from lib_workflows import (
    At,
    Context,
    DefinitionError,
    Engine,
    EventType,
    Every,
    Principal,
    Queue,
    QueueLimits,
    Rate,
    Registry,
    Signal,
    step,
    workflow,
)
from lib_workflows.errors import QueueDeclared, QueueInvalid, ScheduleInvalid
from lib_workflows.queueing import queues as module
from lib_workflows.queueing import slots as queue_slots
from lib_workflows.reading import queries
from lib_workflows.tables import queues, runs
from lib_workflows.testing import environment
from lib_workflows.workers import arrivals
from lib_workflows.workers.claims import claim
from lib_workflows.workers.limits import Limits
from lib_workflows.workers.unclaimed import LATE_SECONDS, UnclaimedAlarm

go_on = Signal("go-on", str)
under_way: set[str] = set()
sizes: list[int] = []  # how many were under way, whenever one more was
begun: list[datetime] = []


@pytest.fixture(autouse=True)
def nothing_under_way():
    for record in (under_way, sizes, begun):
        record.clear()


@workflow(name="waits", queue="narrow")
async def waits(ctx: Context) -> str:
    return await ctx.wait_signal(go_on)


@workflow(name="counted", queue="narrow")
async def counted(ctx: Context, number: int) -> int:
    """At most as many as the queue allows are between these two lines, in all workers of this process."""
    under_way.add(ctx.run_id)
    sizes.append(len(under_way))
    await ctx.sleep(0.01)
    under_way.discard(ctx.run_id)
    return number


@workflow(name="told", queue="steady")
async def told(ctx: Context) -> None:
    """Nothing to do."""


@workflow(name="told-number", queue="steady")
async def told_number(ctx: Context, number: int) -> None:
    begun.append(ctx.now())


@workflow(name="parent")
async def parent(ctx: Context) -> list[int]:
    return await ctx.gather(*(ctx.child(counted, number) for number in range(6)))


@workflow(name="again", queue="narrow")
async def again(ctx: Context, left: int) -> str:
    await ctx.wait_signal(go_on)
    return await ctx.continue_as_new(left - 1) if left else "done"


@step(retries=0)
async def fails(which: str) -> None:
    raise ValueError(which)


@workflow(name="failing", queue="narrow")
async def failing(ctx: Context) -> None:
    await ctx.step(fails, "always")


WORKFLOWS = [waits, counted, told, told_number, parent, again, failing]
ONE = QueueLimits(concurrency=1)


async def statuses(engine, handles):
    def look(connection):
        return dict(connection.execute(select(runs.c.id, runs.c.status)).all())

    found = await engine.database.read(look)
    return [found[handle.id] for handle in handles]


async def until(engine, handles, *wanted):
    found = []

    async def are():
        found[:] = await statuses(engine, handles)
        return found == list(wanted)

    try:
        await wait_until(are)
    except TimeoutError:
        assert found == list(wanted)


async def test_of_a_paused_queue_nothing_begins_and_what_is_under_way_goes_on(database_url):
    async with Engine.open(database_url, WORKFLOWS) as engine:
        first = await engine.start(waits)
        await until(engine, [first], "waiting")
        assert (await engine.queues.pause("narrow", note="the printer burns")).paused
        held = await engine.start_many(counted, [1, 2, 3])
        elsewhere = await engine.start(told)
        await elsewhere.result(10)
        await first.signal(go_on, "ended")
        assert await first.result(10) == "ended"
        assert await statuses(engine, held) == ["queued"] * 3
        view = await engine.queues.get("narrow")
        assert (view.note, view.queued, view.due, view.under_way) == ("the printer burns", 3, 3, 0)
        (lacks,) = (await engine.database.read(queries.get_run, held[0].id)).waiting_for
        assert (lacks["kind"], lacks["name"]) == ("slot", "of queue narrow")
    async with Engine.open(database_url, WORKFLOWS) as engine:
        assert await statuses(engine, held) == ["queued"] * 3, "a pause outlives the process"
        await engine.queues.resume("narrow")
        assert [await engine.handle(handle.id, counted).result(10) for handle in held] == [1, 2, 3]


async def test_no_more_runs_are_under_way_than_the_queue_allows(database_url):
    async with Engine.open(database_url, WORKFLOWS) as engine:
        await engine.queues.limit("narrow", QueueLimits(concurrency=2))
        handles = await engine.start_many(counted, range(10))
        handles += [await engine.start(counted, 10), await engine.start(counted, 11, id="chosen")]
        assert [await handle.result(20) for handle in handles] == list(range(12))
        assert max(sizes) == 2
        assert await (await engine.start(parent)).result(20) == list(range(6)), "children count, too"
        assert max(sizes) == 2
        sizes.clear()
        await engine.queues.limit("narrow", QueueLimits())
        assert await (await engine.start(parent)).result(20) == list(range(6))
        assert max(sizes) == 6


async def test_a_run_has_its_slot_while_it_waits_and_the_most_urgent_is_next(database_url):
    async with Engine.open(database_url, WORKFLOWS) as engine:
        before = await engine.start(waits)  # under way before there is a limit: it counts all the same
        await until(engine, [before], "waiting")
        await engine.queues.limit("narrow", ONE)
        late, urgent = await engine.start(waits), await engine.start(waits, priority=5)
        done = await engine.start(told)
        await done.result(10)
        assert await statuses(engine, [before, late, urgent]) == ["waiting", "queued", "queued"]
        await before.signal(go_on, "1")
        await until(engine, [before, late, urgent], "completed", "queued", "waiting")
        await urgent.cancel()
        await until(engine, [before, late, urgent], "completed", "waiting", "cancelled")
        await late.signal(go_on, "3")
        assert await late.result(10) == "3"


async def test_what_waits_for_a_slot_can_be_cancelled_and_ends_when_it_is_too_late(database_url):
    async with Engine.open(database_url, WORKFLOWS) as engine:
        await engine.queues.pause("narrow")
        given_up, late = await engine.start(waits), await engine.start(waits, deadline=datetime.now(UTC))
        await given_up.cancel()
        await until(engine, [given_up, late], "cancelled", "failed")
        assert (await engine.queues.get("narrow")).queued == 0


async def test_slots_outlive_crashes_and_come_back_with_the_end(database_url):
    for _ in range(3):
        async with Engine.open(database_url, WORKFLOWS, lease_seconds=0.5) as engine:
            await engine.queues.limit("narrow", ONE)
            first = await engine.start(again, 2, id="first", on_conflict="existing")
            second = await engine.start(waits, id="second")
            await until(engine, [first, second], "waiting", "queued")
            await engine.abandon()
    async with Engine.open(database_url, WORKFLOWS, lease_seconds=0.5) as engine:
        for _ in range(3):  # it goes on as new twice, and keeps its slot
            assert await statuses(engine, [second]) == ["queued"]
            await engine.handle("first").signal(go_on, "on")
        await until(engine, [first, second], "completed", "waiting")


async def test_a_run_that_is_retried_waits_for_a_slot_like_any_other(database_url):
    async with Engine.open(database_url, WORKFLOWS) as engine:
        await engine.queues.limit("narrow", ONE)
        failed, other = await engine.start(failing), await engine.start(waits)
        await until(engine, [failed, other], "failed", "waiting")
        await failed.retry()
        done = await engine.start(told)
        await done.result(10)
        assert await statuses(engine, [failed, other]) == ["queued", "waiting"]
        await other.signal(go_on, "ended")
        await until(engine, [failed, other], "failed", "completed")


async def test_runs_begin_no_faster_than_the_rate_lets_them(database_url):
    async with environment(database_url, WORKFLOWS) as env:
        await env.engine.queues.limit("steady", QueueLimits(rate=Rate(3, timedelta(minutes=1))))
        for handle in await env.engine.start_many(told_number, range(8)):
            await env.result(handle)
        assert since(begun[0], begun) == [0, 0, 0, 20, 40, 60, 80, 100], "three at once, then one in 20 s"
        await env.skip(timedelta(hours=1))
        for handle in await env.engine.start_many(told_number, range(4)):
            await env.result(handle)
        assert since(begun[8], begun[8:]) == [0, 0, 0, 20], "a rest fills the bucket, and no more than that"


async def test_a_clock_that_is_set_back_does_not_stop_a_queue_with_a_rate(database_url):
    async with environment(database_url, [told_number]) as env:
        await env.engine.queues.limit("steady", QueueLimits(rate=Rate(2, timedelta(minutes=1))))
        await env.skip(timedelta(days=1))  # the clock was wrong by a day …
        for handle in await env.engine.start_many(told_number, range(2)):
            await env.result(handle)
        env.clock._micros -= 86_400_000_000  # … and is set right while the bucket is empty
        right = env.now
        for handle in await env.engine.start_many(told_number, range(3)):
            await env.result(handle)
        assert since(right, begun[2:]) == [0, 30, 60]


def test_clocks_that_differ_a_little_let_no_more_runs_begin():
    rate = Rate(2, timedelta(minutes=1))
    for seconds_behind in (0, 1, 59):
        full_at = rate.full_after(2, 0, 1_000_000_000)
        assert rate.allowed(full_at, 1_000_000_000 - seconds_behind * 1_000_000) == 0


def since(first, moments):
    return [round((moment - first).total_seconds()) for moment in sorted(moments)]


@pytest.mark.postgresql
async def test_two_workers_share_the_slots(postgresql_url):
    async with (
        Engine.open(postgresql_url, WORKFLOWS) as one,
        Engine.open(postgresql_url, WORKFLOWS) as other,
    ):
        await one.queues.limit("narrow", QueueLimits(concurrency=3))
        await wait_until(lambda: "narrow" in other.residence.arrivals.limited)
        handles = [
            handle for engine in (one, other) * 2 for handle in await engine.start_many(counted, list(range(10)))
        ]
        assert [await handle.result(30) for handle in handles] == list(range(10)) * 4
        assert max(sizes) == 3
        await other.queues.pause("narrow")
        await wait_until(lambda: one.residence.arrivals.limited == other.residence.arrivals.limited)
        held = await one.start(counted, 1)
        assert await statuses(one, [held]) == ["queued"]
        await one.queues.resume("narrow")
        assert await held.result(10) == 1


@pytest.mark.postgresql
async def test_the_slots_of_a_worker_that_is_gone_are_those_of_its_runs(postgresql_url):
    async with Engine.open(postgresql_url, WORKFLOWS, lease_seconds=0.5) as one:
        await one.queues.limit("narrow", ONE)
        first = await one.start(waits)
        await until(one, [first], "waiting")
        second = await one.start(waits)
        async with Engine.open(postgresql_url, WORKFLOWS, lease_seconds=0.5) as other:
            await one.abandon()
            await other.handle(first.id).signal(go_on, "taken over")
            assert await other.handle(first.id, waits).result(10) == "taken over"
            await until(other, [first, second], "completed", "waiting")


@pytest.mark.postgresql
async def test_a_slot_that_came_free_is_told_to_the_worker_that_holds_what_is_next(postgresql_url, monkeypatch):
    monkeypatch.setattr(arrivals, "POLL_SECONDS", 60.0)
    async with (
        Engine.open(postgresql_url, [waits, again]) as one,
        Engine.open(postgresql_url, [counted, again]) as other,
    ):
        await one.queues.limit("narrow", ONE)
        await wait_until(lambda: "narrow" in other.residence.arrivals.limited)
        first = await one.start(waits)
        await until(one, [first], "waiting")
        next_one = await other.start(counted, 1)
        await wait_until(lambda: other.residence.arrivals.is_pausing)
        await first.signal(go_on, "")
        assert await next_one.result(10) == 1


class Mail(BaseModel):
    to: str
    number: int


order_of_begin: list[str] = []


def keyed(**limits):
    @workflow(name="send", queue=Queue("post", key="to", **limits))
    async def send(ctx: Context, mail: Mail) -> str:
        order_of_begin.append(f"{mail.to}{mail.number}")
        return await ctx.wait_signal(go_on)

    order_of_begin.clear()
    return send


async def start_paused(engine, send, mails):
    """All of them wait before the first begins."""
    await engine.queues.pause("post")
    handles = {}
    for to, number in mails:
        handles[f"{to}{number}"] = await engine.start(send, Mail(to=to, number=number))
    await engine.queues.resume("post")
    return handles


async def test_of_each_key_only_so_many_are_under_way(database_url):
    send = keyed(per_key=1)
    async with Engine.open(database_url, [send]) as engine:
        handles = await start_paused(engine, send, [("ada", 1), ("ada", 2), ("bob", 1), ("ada", 3), ("eve", 1)])
        await wait_until(lambda: len(order_of_begin) == 3)
        assert sorted(order_of_begin) == ["ada1", "bob1", "eve1"]
        await handles["bob1"].signal(go_on, "")
        await handles["ada1"].signal(go_on, "")
        await wait_until(lambda: "ada2" in order_of_begin)
        await handles["ada2"].cancel()
        await wait_until(lambda: "ada3" in order_of_begin)
        assert len(order_of_begin) == 5


async def test_keys_take_turns_however_many_runs_one_of_them_has(database_url):
    send = keyed(concurrency=1)
    async with Engine.open(database_url, [send]) as engine:
        mails = [("ada", number) for number in range(20)] + [("bob", 1), ("eve", 1), ("eve", 2)]
        handles = await start_paused(engine, send, mails)
        for turn in range(6):
            await wait_until(lambda: len(order_of_begin) == turn + 1)  # noqa: B023 - it is waited for at once
            await handles[order_of_begin[-1]].signal(go_on, "")
        await wait_until(lambda: len(order_of_begin) == 7)
        assert order_of_begin == ["ada0", "bob1", "eve1", "ada1", "eve2", "ada2", "ada3"]


async def test_many_slots_are_shared_out_among_the_keys(database_url):
    send = keyed(concurrency=6, per_key=4)
    async with Engine.open(database_url, [send]) as engine:
        await start_paused(engine, send, [*(("ada", number) for number in range(9)), ("bob", 1), ("eve", 1)])
        await wait_until(lambda: len(order_of_begin) == 6)
        assert sorted(order_of_begin) == ["ada0", "ada1", "ada2", "ada3", "bob1", "eve1"]


async def test_runs_without_the_key_take_turns_as_one_whoever_sent_them(database_url):
    send = keyed(per_key=1)

    @workflow(name="other", queue="post")
    async def other(ctx: Context) -> None:
        order_of_begin.append("other")
        await ctx.wait_signal(go_on)

    async with Engine.open(database_url, [send, other]) as engine:
        first, second = await engine.start(other), await engine.start(other)
        await engine.start(send, Mail(to="", number=1))
        await wait_until(lambda: sorted(order_of_begin) == ["1", "other"])
        assert await statuses(engine, [second]) == ["queued"]
        await first.signal(go_on, "")
        await until(engine, [first, second], "completed", "waiting")


async def test_a_start_may_say_with_whom_its_run_takes_turns(database_url):
    send = keyed(per_key=1)
    async with Engine.open(database_url, [send, waits]) as engine:
        for number in (1, 2):
            await engine.start(send, Mail(to=str(number), number=number), queue_key="ada")
        other = await engine.start(waits, queue="post", queue_key="ada")
        await wait_until(lambda: order_of_begin == ["11"])
        await engine.start(send, Mail(to="bob", number=3))
        await wait_until(lambda: order_of_begin == ["11", "bob3"])
        assert await statuses(engine, [other]) == ["queued"]
        for wrong in ("", "x" * 201):
            with pytest.raises(QueueInvalid, match="queue_key of a queue must be"):
                await engine.start(waits, queue_key=wrong)


async def test_a_fork_with_another_input_takes_turns_by_that(database_url):
    send = keyed(per_key=1)
    async with Engine.open(database_url, [send]) as engine:
        await engine.queues.pause("post")
        by_input = await engine.start(send, Mail(to="ada", number=1))
        by_word = await engine.start(send, Mail(to="ada", number=1), queue_key="eve")
        forks = [
            await by_input.fork(input=Mail(to="bob", number=1)),
            await by_input.fork(),
            await by_word.fork(input=Mail(to="bob", number=1)),
        ]
        keys = {row.id: row.queue_key for row in await engine.database.read(lambda c: c.execute(select(runs)).all())}
        assert [keys[fork.id] for fork in forks] == ["bob", "ada", "eve"]


async def test_children_events_and_schedules_have_their_key_too(database_url):
    sent = EventType("mail.written", Mail)

    @workflow(name="send", queue=Queue("post", key="to"), on=sent)
    async def send(ctx: Context, mail: Mail | None = None) -> None: ...

    @workflow(name="sends")
    async def sends(ctx: Context) -> None:
        await ctx.publish(sent, Mail(to="by an event", number=1))
        await ctx.child(send, Mail(to="as a child", number=1))
        await ctx.start(send, Mail(to="x" * 500, number=1))

    async with Engine.open(database_url, [send, sends]) as engine:
        await (await engine.start(sends)).result(10)
        timing = At((datetime.now(UTC) + timedelta(hours=1),))
        await engine.schedules.create("later", send, Mail(to="by a schedule", number=1), timing=timing)
        await engine.schedules.trigger("later")
        await engine.start(send, Mail(to="elsewhere", number=1), queue="another")
        keys = select(runs.c.queue_key).where(runs.c.workflow == "send")

        async def all_there():
            found = set(await engine.database.read(lambda connection: connection.scalars(keys).all()))
            others = found - {"by an event", "as a child", "by a schedule", None}
            return len(found) == 5 and [(key[:3], 200 < len(key) < 250) for key in others] == [("xxx", True)]

        await wait_until(all_there)


async def test_whose_turn_it_is_is_found_without_looking_at_everybody(sqlite_url):
    send = keyed(per_key=1)
    async with Engine.open(sqlite_url, [send]) as engine:
        await engine.queues.pause("post")
        await engine.start_many(send, [Mail(to=f"n{number % 3}", number=number) for number in range(50)])

        def plans(connection):
            asked = []
            sqlalchemy_event.listen(connection._core, "before_cursor_execute", lambda *call: asked.append(call[2:4]))
            row = connection.execute(select(queues)).one()
            due = select(runs.c.id).order_by(runs.c.priority.desc(), runs.c.wake_at)
            queue_slots.take_turns(connection, due.where(runs.c.queue == "post", queue_slots.NEEDS_SLOT), row,
                                   now=engine.clock.micros(), limit=5)  # fmt: skip
            raw = connection._core.connection.driver_connection
            return [str(raw.execute(f"EXPLAIN QUERY PLAN {sql}", given).fetchall()) for sql, given in asked[1:]]

        found = await engine.database.read(plans)
        assert len(found) >= 5
        assert all("runs_queued" in plan or "runs_slot" in plan for plan in found), found
        assert not any("SCAN runs" in plan or "TEMP B-TREE FOR ORDER BY" in plan for plan in found), found


@pytest.mark.postgresql
async def test_the_runs_of_a_key_are_found_without_looking_at_the_others(postgresql_url):
    send = keyed(per_key=1)
    async with Engine.open(postgresql_url, [send]) as engine:
        await engine.queues.pause("post")
        await engine.start_many(send, [Mail(to="ada", number=number) for number in range(300)])
        await engine.start(send, Mail(to="zoe", number=1), priority=-5)

        def passed_over(connection):
            """How many rows were read for nothing when the next run of each key was looked for."""
            asked = []
            core = connection._core
            row = connection.execute(select(queues)).one()
            sqlalchemy_event.listen(core, "before_cursor_execute", lambda *call: asked.append(call[2:4]))
            due = select(runs.c.id).order_by(runs.c.priority.desc(), runs.c.wake_at)
            found, _ = queue_slots.take_turns(connection, due.where(runs.c.queue == "post", queue_slots.NEEDS_SLOT),
                                              row, now=engine.clock.micros(), limit=2)  # fmt: skip
            assert len(found) == 2
            plans = [core.exec_driver_sql(f"EXPLAIN (ANALYZE) {sql}", tuple(given)) for sql, given in asked[-2:]]
            return [line for plan in plans for (line,) in plan if "Rows Removed by Filter" in line]

        assert await engine.database.read(passed_over) == []


reports: list[int] = []


@workflow(name="report")
async def report(ctx: Context, number: int) -> int:
    reports.append(number)
    return number


async def test_starts_in_a_burst_are_one_run_with_the_last_input(database_url):
    reports.clear()
    wait, limit = timedelta(seconds=30), timedelta(seconds=100)
    async with environment(database_url, [report]) as env:

        async def start(number, key="of ada", **options):
            return await env.engine.start(report, number, delay=wait, debounce=key, **options)

        first = await start(1)
        await env.skip(timedelta(seconds=20))
        second = await start(2, tags={"last": "yes"})
        other = await start(9, "of bob")
        strangers = await start(7, principal=Principal("eve"))
        await env.skip(timedelta(seconds=20))
        assert (first.id, reports) == (second.id, [])
        assert await env.result(first) == 2
        assert len({first.id, other.id, strangers.id}) == 3
        assert sorted([await env.result(other), await env.result(strangers)]) == [7, 9]
        assert (await start(3)).id != first.id, "that one has ended"
        bounded = []
        for number in range(5):
            bounded.append(await start(number, "bounded", debounce_limit=limit))
            await env.skip(timedelta(seconds=20 if number < 4 else 0))
        began = env.now
        assert await env.result(bounded[0]) == 4, "the last that came within the limit"
        assert env.now - began < wait, "it would be the wait without a limit"
        assert {handle.id for handle in bounded} == {bounded[0].id}
        assert (await start(5, "bounded", debounce_limit=limit)).id != bounded[0].id


async def test_of_a_burst_from_everywhere_there_is_one_run(database_url):
    async with Engine.open(database_url, [report]) as engine:
        starts = (engine.start(report, n, delay=timedelta(hours=1), debounce="one") for n in range(50))
        handles = await asyncio.gather(*starts)
        assert len({handle.id for handle in handles}) == 1
        await engine.queues.pause("default")
        late = await engine.start(report, 1, delay=timedelta(milliseconds=1), debounce="two")
        again = await engine.start(report, 2, delay=timedelta(milliseconds=1), debounce="two")
        assert late.id == again.id, "due, and not begun"
        await engine.queues.resume("default")
        assert await late.result(10) == 2


async def test_what_was_debounced_can_fail_and_be_retried_beside_the_next(database_url):
    @workflow(name="fails")
    async def fails_at_first(ctx: Context, number: int) -> None:
        await ctx.step(fails, "always")

    moment = timedelta(milliseconds=1)
    async with Engine.open(database_url, [fails_at_first]) as engine:
        failed = await engine.start(fails_at_first, 1, delay=moment, debounce="one")
        await until(engine, [failed], "failed")
        await engine.queues.pause("default")
        waiting = await engine.start(fails_at_first, 2, delay=moment, debounce="one")
        await failed.retry()
        assert await statuses(engine, [failed, waiting]) == ["queued", "queued"]


async def test_a_debounce_that_makes_no_sense_is_refused(sqlite_url, subtests):
    async with Engine.open(sqlite_url, [report]) as engine:
        wait = timedelta(seconds=1)
        for options in ({}, {"delay": wait, "id": "x"}, {"delay": wait, "idempotency_key": "x"}):
            with subtests.test(str(options)), pytest.raises(DefinitionError, match="must be given with a delay"):
                await engine.start(report, 1, debounce="key", **options)


async def test_limits_are_declared_in_code_and_are_the_codes_from_then_on(database_url):
    def declare(queue):
        @workflow(name="mail", queue=queue)
        async def mail(ctx: Context) -> None:
            """Send a mail."""

        return mail

    async with Engine.open(database_url, [declare(Queue("mail", concurrency=4)), counted]) as engine:
        with pytest.raises(QueueDeclared, match="in the code of a workflow"):
            await engine.queues.limit("mail", ONE)
        await engine.queues.pause("mail")
        view = await engine.queues.get("mail")
        assert (view.limits, view.declared, view.paused) == (QueueLimits(concurrency=4), True, True)
        assert view.workflows == ("mail",)
    faster = Queue("mail", concurrency=8, rate=Rate(100, timedelta(minutes=1)))
    async with Engine.open(database_url, [declare(faster)]) as engine:
        view = await engine.queues.get("mail")
        assert (view.limits, view.paused) == (faster.limits, True), "a pause is the operator's"
    async with Engine.open(database_url, [counted]) as engine:
        assert (await engine.queues.get("mail")).declared, "who has not the workflow has no say"
    async with Engine.open(database_url, [declare("mail")]) as engine:
        assert (await engine.queues.get("mail")).limits == QueueLimits()
        view = await engine.queues.limit("mail", ONE)
        assert (view.limits, view.declared) == (ONE, False)
        told_of = select(events.c.type).where(events.c.subject == "mail").order_by(events.c.last_position)
        names = await engine.database.read(lambda connection: connection.scalars(told_of).all())
        changed = "evs.queue.changed"
        assert names == [changed, "evs.queue.paused", changed, changed, changed]


async def test_queues_are_listed_with_what_they_hold(database_url):
    async with Engine.open(database_url, WORKFLOWS) as engine:
        await engine.queues.limit("apart", ONE)
        await engine.queues.pause("used")
        now = await engine.start(waits, queue="used")
        later = await engine.start(waits, queue="used", delay=timedelta(hours=1))
        waiting = await engine.start(waits)
        await until(engine, [now, later, waiting], "queued", "queued", "waiting")
        first = await engine.queues.list(limit=2)
        rest = await engine.queues.list(cursor=first.next_cursor)
        found = {view.name: view for view in (*first.items, *rest.items)}
        assert list(found) == ["apart", "default", "narrow", "steady", "used"]
        used, narrow = found["used"], found["narrow"]
        assert (used.queued, used.due, used.under_way, narrow.under_way) == (2, 1, 0, 1)
        assert used.due_since is not None
        assert rest.next_cursor is None


async def test_nobody_is_alarmed_about_runs_that_wait_for_a_slot(database_url, caplog):
    class LaterClock(SystemClock):
        def micros(self):
            return super().micros() + int(LATE_SECONDS * 2e6)

    async with Engine.open(database_url, WORKFLOWS) as engine:
        await engine.queues.pause("narrow")
        await engine.start(waits)
        alarm = UnclaimedAlarm(engine.database, LaterClock(), registry=Registry.of(WORKFLOWS), look_seconds=0.005)
        async with running(alarm):
            await wait_until(lambda: alarm.is_pausing)
            await asyncio.sleep(0.05)
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_limits_that_make_no_sense_are_refused(subtests):
    wrong = {
        "concurrency of a queue must be 1 to 1,000,000 runs, got 0": lambda: QueueLimits(concurrency=0),
        "got True": lambda: QueueLimits(concurrency=True),
        "rate of a queue must be 1 to": lambda: Rate(-1),
        "per millisecond or longer": lambda: Rate(5, timedelta(microseconds=1)),
        "must be a Rate": lambda: QueueLimits(rate=5),
        "name of a queue must be": lambda: Queue(""),
        "name of a queue must have no slash": lambda: Queue("mail/bulk"),
        "its page is found by it; got '..'": lambda: Queue(".."),
        "got 'too long": lambda: Queue("too long" * 20),
        "got 'a/b'": lambda: workflow(name="mail", queue="a/b")(told.function),
        "per_key of a queue must have a key": lambda: Queue("mail", per_key=1),
        "key of a queue must be": lambda: Queue("mail", key=""),
    }
    for message, make in wrong.items():
        with subtests.test(message), pytest.raises(QueueInvalid, match=message):
            make()


def test_a_queue_is_declared_once():
    @workflow(name="one", queue=Queue("mail", concurrency=1))
    async def one(ctx: Context) -> None: ...

    @workflow(name="two", queue=Queue("mail", concurrency=2))
    async def two(ctx: Context) -> None: ...

    with pytest.raises(DefinitionError, match="queue mail must have one declaration of its limits"):
        Registry.of([one, two])


async def test_a_limit_leaves_no_slot_behind(database_url):
    async with Engine.open(database_url, WORKFLOWS) as engine:
        await engine.queues.limit("narrow", QueueLimits(concurrency=5))
        handles = await engine.start_many(counted, list(range(50)))
        for handle in handles:
            await handle.result(20)
        held = select(func.count()).where(runs.c.slot.is_not(None), runs.c.ended_at.is_(None))
        assert await engine.database.read(lambda connection: connection.scalar(held)) == 0


@step
async def takes_a_while(number: int) -> int:
    await asyncio.sleep(0.01)
    return number


@pytest.mark.parametrize("kind", ["begun", "unlimited", "narrow"])
async def test_a_queue_of_many_slots_leaves_the_others_their_turn_when_memory_is_full(database_url, kind):
    @workflow(name="bulk", queue=Queue("a-bulk", key="to"))
    async def bulk(ctx: Context, mail: Mail) -> int:
        return await ctx.step(takes_a_while, mail.number)

    few = Limits(in_memory=2, idle_seconds=0.01)
    async with Engine.open(database_url, [bulk, waits, told, told_number], limits=few) as engine:
        await engine.queues.limit("narrow", QueueLimits(concurrency=5))
        await engine.queues.pause("a-bulk")
        mails = [Mail(to=str(number % 5), number=number) for number in range(300)]
        await engine.start_many(bulk, mails)
        sleeper = await engine.start(waits)
        await until(engine, [sleeper], "waiting")
        if kind != "begun":
            await sleeper.cancel()

        def is_empty():
            engine.residence.arrivals.wake()  # who rests leaves when it looks
            return not engine.residence.executors

        await wait_until(is_empty)
        await engine.queues.resume("a-bulk")

        async def has_begun():
            return (await engine.queues.get("a-bulk")).queued < len(mails)

        await wait_until(has_begun)
        if kind == "begun":
            await sleeper.signal(go_on, "awake")
            other = sleeper
        else:
            other = await engine.start(told, queue="narrow" if kind == "narrow" else "steady")
        await other.result(20)
        assert (await engine.queues.get("a-bulk")).queued > 150


async def test_a_run_is_not_started_in_a_queue_that_has_no_page(database_url):
    async with Engine.open(database_url, WORKFLOWS) as engine:
        with pytest.raises(QueueInvalid, match="have no slash"):
            await engine.start(told, queue="team/mail")
        for name in ("team/mail", ".."):
            with pytest.raises(ScheduleInvalid, match="queue must have no slash"):
                await engine.schedules.create("s", told, timing=Every(timedelta(hours=1)), queue=name)
        # One that an earlier release made is still looked at, and resumed.
        await engine.queues.pause("team/mail")
        assert not (await engine.queues.resume("team/mail")).paused


async def test_a_run_that_begins_while_a_limit_comes_counts_too(database_url):
    async with Engine.open(database_url, WORKFLOWS) as engine:
        learn, early = engine.residence.arrivals.learn_limits, []

        async def start_and_learn():
            early.append(await engine.start(waits))
            await learn()

        engine.queues._on_change = start_and_learn
        await engine.queues.limit("narrow", ONE)
        engine.queues._on_change = learn
        late = await engine.start(waits)
        await until(engine, [*early, late], "waiting", "queued")
        await (await engine.start(told)).result(10)
        assert await statuses(engine, [late]) == ["queued"]
        await early[0].signal(go_on, "")
        await until(engine, [*early, late], "completed", "waiting")


async def test_a_run_that_is_too_late_takes_nobodys_slot(database_url):
    async with Engine.open(database_url, WORKFLOWS) as engine:
        await engine.queues.limit("narrow", ONE)
        await engine.queues.pause("narrow")
        late = await engine.start(waits, deadline=datetime.now(UTC) + timedelta(hours=1), priority=9)
        other = await engine.start(waits)
        then = engine.clock.micros() + 7_200_000_000

        def take(connection):
            connection.execute(queues.update().values(paused=False))
            found = claim(connection, "x", engine.residence.arrivals.capability, now=then, limit=9)
            return set(found.runs), connection.scalars(select(runs.c.id).where(runs.c.slot.is_not(None))).all()

        assert await engine.database.transact(take) == ({late.id, other.id}, [other.id])


async def test_of_more_queues_than_are_looked_at_one_by_one_none_is_left_out(database_url, monkeypatch):
    """Those that come last by name waited as long as runs waited in those before them."""
    monkeypatch.setattr(queue_slots, "MOST_QUEUES", 2)
    async with Engine.open(database_url, [told]) as engine:
        await engine.queues.pause("p")
        later = timedelta(hours=1)
        for queue in ("a", "b", "c", "p"):
            await engine.start(told, queue=queue, delay=later, priority=9 if queue == "c" else 0)
        then = engine.clock.micros() + 7_200_000_000

        def first(connection):
            found = claim(connection, "x", engine.residence.arrivals.capability, now=then, limit=1)
            return connection.scalars(select(runs.c.queue).where(runs.c.id.in_(found.runs))).all()

        assert await engine.database.transact(first) == ["c"]


async def test_counting_that_takes_long_is_not_done_again_at_once(database_url, monkeypatch):
    """Half a million runs take seconds, which everybody who looked at the queues paid anew."""
    counted, count = [], module._counts

    def slowly(connection, now):
        counted.append(now)
        return count(connection, now)

    monkeypatch.setattr(module, "_counts", slowly)
    async with Engine.open(database_url, [told]) as engine:
        await engine.start(told, delay=timedelta(hours=1))
        for _ in range(2):
            assert [queue.queued for queue in (await engine.queues.list()).items] == [1]
        assert len(counted) == 2, "what is quick is always new"
        monkeypatch.setattr(module, "SLOW_SECONDS", 0.0)
        found = await asyncio.gather(*(engine.queues.list() for _ in range(5)), engine.queues.get("steady"))
        assert found[-1].queued == 1
        assert len(counted) == 3
