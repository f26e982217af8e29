"""Keys of queues: runs take turns by them, and each key has its share."""

from datetime import UTC, datetime, timedelta

import pytest
from queued_flows import Mail, go_on, statuses, until, waits
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import select

from lib_events.testing import wait_until
from lib_workflows import At, Context, Engine, EventType, Queue, workflow
from lib_workflows.errors import QueueInvalid
from lib_workflows.queueing.slots import NEEDS_SLOT
from lib_workflows.queueing.turns import take_turns
from lib_workflows.tables import queues, runs

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
            take_turns(connection, due.where(runs.c.queue == "post", NEEDS_SLOT), row,
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
            found, _ = take_turns(connection, due.where(runs.c.queue == "post", NEEDS_SLOT),
                                              row, now=engine.clock.micros(), limit=2)  # fmt: skip
            assert len(found) == 2
            plans = [core.exec_driver_sql(f"EXPLAIN (ANALYZE) {sql}", tuple(given)) for sql, given in asked[-2:]]
            return [line for plan in plans for (line,) in plan if "Rows Removed by Filter" in line]

        assert await engine.database.read(passed_over) == []
