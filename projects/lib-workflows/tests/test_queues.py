"""Queues with limits: pauses, runs under way at most, runs that begin in a time; several workers, crashes, new code."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import pytest
from queued_flows import Mail, fails, go_on, statuses, until, waits
from sqlalchemy import func, select

from lib_events.clock import SystemClock
from lib_events.lifecycle import running
from lib_events.tables import events
from lib_events.testing import wait_until
from lib_workflows import Context, DefinitionError, Engine, Every, Queue, QueueLimits, Rate, Registry, step, workflow
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

under_way: set[str] = set()
sizes: list[int] = []  # how many were under way, whenever one more was
begun: list[datetime] = []


@pytest.fixture(autouse=True)
def nothing_under_way():
    for record in (under_way, sizes, begun):
        record.clear()


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


@workflow(name="failing", queue="narrow")
async def failing(ctx: Context) -> None:
    await ctx.step(fails, "always")


WORKFLOWS = [waits, counted, told, told_number, parent, again, failing]
ONE = QueueLimits(concurrency=1)


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


looks = [1]  # of the code of today, before it does what it did


@workflow(name="changes", queue="narrow")
async def changes(ctx: Context) -> str:
    for _ in range(looks[0]):
        await ctx.sleep(0.001)
    return await ctx.wait_signal(go_on)


async def test_a_parked_run_has_no_slot_and_waits_for_one_when_it_is_retried(database_url):
    looks[0], flows, at_once = 1, [*WORKFLOWS, changes], {"lease_seconds": 0.5}
    async with Engine.open(database_url, flows, **at_once) as engine:
        await engine.queues.limit("narrow", ONE)
        parked, other = await engine.start(changes, id="parked"), await engine.start(waits, id="other")
        await until(engine, [parked, other], "waiting", "queued")
        await engine.abandon()
    looks[0] = 0
    async with Engine.open(database_url, flows, **at_once) as engine:
        parked, other = engine.handle("parked", changes), engine.handle("other", waits)
        await parked.signal(go_on, "wakes it")
        await until(engine, [parked, other], "nondeterministic", "waiting")
        looks[0] = 1
        await parked.retry()
        await (await engine.start(told)).result(10)
        assert await statuses(engine, [parked, other]) == ["queued", "waiting"]
        await engine.abandon()
    async with Engine.open(database_url, flows, **at_once) as engine:
        parked, other = engine.handle("parked", changes), engine.handle("other", waits)
        third = await engine.start(waits)
        await other.signal(go_on, "ended")
        assert await parked.result(10) == "wakes it"
        await until(engine, [parked, other, third], "completed", "completed", "waiting")


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


async def test_what_begins_in_one_queue_uses_up_no_rate_and_no_turn_of_another(sqlite_url):
    async with Engine.open(sqlite_url, WORKFLOWS) as engine:
        for name in ("narrow", "other"):
            await engine.queues.limit(name, QueueLimits(rate=Rate(1, timedelta(hours=1)), key="to", per_key=1))
        began = await engine.start(waits, queue_key="ada")
        await until(engine, [began], "waiting")
        state = select(queues.c.full_at, queues.c.last_key).where(queues.c.name == "other")
        assert (await engine.database.read(lambda c: c.execute(state).one())) == (0, None)
        await until(engine, [await engine.start(waits, queue="other", queue_key="ada")], "waiting")


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
        "rate_per_key of a queue must have a key": lambda: Queue("mail", rate_per_key=Rate(1)),
        "rate_per_key of a queue must be a Rate": lambda: Queue("mail", key="to", rate_per_key=5),
        "key of a queue must be": lambda: Queue("mail", key=""),
    }
    for message, make in wrong.items():
        with subtests.test(message), pytest.raises(QueueInvalid, match=message):
            make()


async def test_limits_of_another_kind_are_refused_and_leave_the_queue_as_it_is(sqlite_url):
    async with Engine.open(sqlite_url, [told]) as engine:
        with pytest.raises(QueueInvalid, match=r"limits of a queue must be QueueLimits\(…\), got 5"):
            await engine.queues.limit("mail", 5)
        assert (await engine.queues.get("mail")).limits == QueueLimits()


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


async def test_a_limit_counts_no_run_of_another_queue(sqlite_url):
    async with Engine.open(sqlite_url, WORKFLOWS) as engine:
        await engine.start(waits, id="other")
        await engine.queues.limit("elsewhere", ONE)
        slot = select(runs.c.slot).where(runs.c.id == "other")
        assert await engine.database.read(lambda c: c.scalar(slot)) is None


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
