"""What fails beneath the engine: commits, reads, connections, histories that no longer fit. No run is left behind."""

import asyncio
from datetime import timedelta

import pytest
from flows import address_changed, change_quantity, doubling
from sqlalchemy import select, text

from lib_events.database import CommitFailed, CommitQueueFull, Connection
from lib_events.testing import wait_until
from lib_workflows import (
    Backoff,
    Context,
    Engine,
    RunCancelled,
    RunFailed,
    Signal,
    StepFailed,
    UpdateRejected,
    step,
    workflow,
)
from lib_workflows.errors import Nondeterministic
from lib_workflows.reading import queries
from lib_workflows.runs import commands
from lib_workflows.runs.record import Message
from lib_workflows.statements import APPEND_HISTORY, UPDATE_RUN, WAKE_RUN
from lib_workflows.tables import messages
from lib_workflows.testing import environment
from lib_workflows.workers.limits import Limits

second_signal = Signal("second", str)


async def status_of(engine, run_id):
    return (await engine.database.read(queries.get_run, run_id)).status


async def waits(engine, run_id):
    await wait_until(lambda: _is_waiting(engine, run_id))


async def _is_waiting(engine, run_id):
    return await status_of(engine, run_id) == "waiting"


async def test_a_history_that_no_longer_decodes_parks_its_run_and_no_other(database_url):
    @step(name="typed")
    async def typed_text() -> str:
        return "text"

    @step(name="typed")
    async def typed_number() -> int:
        return 1

    def flow_with(typed):
        @workflow(name="typed-flow")
        async def flow(ctx: Context) -> str:
            await ctx.step(typed)
            return await ctx.wait_signal(address_changed)

        return flow

    @workflow(name="innocent")
    async def innocent(ctx: Context) -> str:
        return await ctx.wait_signal(address_changed)

    async with Engine.open(database_url, [flow_with(typed_text), innocent]) as engine:
        await engine.start(flow_with(typed_text), id="changed")
        await engine.start(innocent, id="innocent")
        await waits(engine, "changed")
        await waits(engine, "innocent")
    async with Engine.open(database_url, [flow_with(typed_number), innocent]) as engine:
        for run_id in ("changed", "innocent"):
            await engine.handle(run_id).signal(address_changed, "on")
        assert await engine.handle("innocent", innocent).result(10) == "on"
        with pytest.raises(Nondeterministic, match=r"position 1.*typed"):
            await engine.handle("changed").result(10)


async def test_a_claim_whose_load_failed_is_loaded_again(database_url):
    async with Engine.open(database_url, [doubling]) as engine:
        look, failures = engine.database.look, []

        async def failing_look(function, *args):
            if function.__name__ == "load_new" and not failures:
                failures.append(function)
                raise OSError("the connection was lost")
            return await look(function, *args)

        engine.database.look = failing_look
        request = engine.request(doubling, "4", id="unlucky")
        await engine.database.transact(commands.start, request)
        assert await engine.handle("unlucky", doubling).result(10) == 8
        assert failures


@pytest.mark.postgresql
async def test_a_transaction_whose_connection_was_lost_is_not_the_runs_failure(postgresql_url):
    calls = []

    def insert(connection) -> int:
        calls.append(1)
        if len(calls) == 1:
            connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return len(calls)

    @workflow(name="cut-off")
    async def cut_off(ctx: Context) -> int:
        return await ctx.transaction(insert)

    async with Engine.open(postgresql_url, [cut_off]) as engine:
        assert await (await engine.start(cut_off)).result(20) == 2


FULL_DISK = """
    CREATE TABLE kept (number integer);
    CREATE SEQUENCE refused;
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM nextval('refused');
        RAISE EXCEPTION 'no space left on device' USING ERRCODE = '53100';
    END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON kept EXECUTE FUNCTION refuse()
"""


@pytest.mark.postgresql
async def test_no_run_fails_because_a_disk_is_full(postgresql_url):
    def keep(connection) -> int:
        return connection.execute(text("INSERT INTO kept VALUES (1)")).rowcount

    @workflow(name="keeps")
    async def flow(ctx: Context) -> int:
        return await ctx.transaction(keep)

    async def was_refused():
        return await engine.database.read(lambda connection: connection.scalar(text("SELECT is_called FROM refused")))

    async with Engine.open(postgresql_url, [flow]) as engine:
        async with engine.database._pool.lend() as borrowed:
            await borrowed.raw.execute(FULL_DISK)
        handle = await engine.start(flow)
        await wait_until(was_refused)
        await engine.database.transact(lambda connection: connection.execute(text("DROP FUNCTION refuse CASCADE")))
        assert await handle.result(20) == 1


@pytest.mark.postgresql
async def test_connections_that_died_while_idle_fail_no_run(postgresql_url):
    def nothing(connection) -> int:
        return 1

    @workflow(name="after-a-restart")
    async def flow(ctx: Context) -> int:
        await ctx.wait_signal(address_changed)
        return await ctx.transaction(nothing)

    def kill_others(connection):
        mine = "application_name = current_setting('application_name') AND pid <> pg_backend_pid()"
        connection.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {mine}"))

    async with Engine.open(postgresql_url, [flow], service="restarted") as engine:
        handle = await engine.start(flow)
        await waits(engine, handle.id)
        await asyncio.gather(*(engine.database.read(queries.get_run, handle.id) for _ in range(8)))
        await engine.database.transact(commands.send_signal, handle.id, "address-changed", '"x"')
        await engine.database.transact(kill_others)
        assert await handle.result(20) == 1


@pytest.mark.postgresql
async def test_a_worker_whose_new_life_cannot_begin_tries_again(postgresql_url):
    async with Engine.open(postgresql_url, [doubling]) as engine:
        begin, failures = engine._worker.begin, []

        async def failing_begin(on_lost):
            if not failures:
                failures.append(1)
                raise OSError("the database is away")
            await begin(on_lost)

        engine._worker.begin = failing_begin
        engine.residence.fenced(engine._worker.owner)
        await wait_until(lambda: failures)
        assert await (await engine.start(doubling, 3)).result(10) == 6


async def test_what_was_decided_after_a_lost_commit_is_lost_with_it(database_url):
    @workflow(name="two-signals")
    async def two_signals(ctx: Context) -> str:
        first = await ctx.wait_signal(address_changed)
        return f"{first} {await ctx.wait_signal(second_signal)}"

    async with Engine.open(database_url, [two_signals]) as engine:
        handle = await engine.start(two_signals)
        await waits(engine, handle.id)
        committer = engine.database._committer
        commit, lost = committer._commit, []

        async def losing_commit(group):
            if not lost and any(w.statement is APPEND_HISTORY for member in group for w in member.writes):
                lost.append(group)
                # While this commit is under way the run goes on, and what it decides is queued behind.
                engine.residence.executors[handle.id].hear([Message(2, "signal", "second", '"b"', None)], 2)
                raise CommitFailed("the disk is full")
            await commit(group)

        committer._commit = losing_commit
        await handle.signal(address_changed, "a")
        await wait_until(lambda: lost)
        await handle.signal(second_signal, "c")
        assert await handle.result(20) == "a c"


async def test_a_full_commit_queue_loses_nothing(sqlite_url):
    @workflow(name="two-signals")
    async def two_signals(ctx: Context) -> str:
        first = await ctx.wait_signal(address_changed)
        return f"{first} {await ctx.wait_signal(second_signal)}"

    async with Engine.open(sqlite_url, [two_signals]) as engine:
        handle = await engine.start(two_signals)
        await waits(engine, handle.id)
        write, refused = engine.database.write, []

        def full_once(*writes, **rest):
            if writes and not refused:
                refused.append(writes)
                raise CommitQueueFull("the queue is full")
            return write(*writes, **rest)

        engine.database.write = full_once
        await handle.signal(address_changed, "a")
        await wait_until(lambda: refused)
        await handle.signal(second_signal, "b")
        assert await handle.result(10) == "a b"
        rows = await engine.database.read(queries.get_history, handle.id)
        assert [row.operation for row in rows] == ["1", "2"]


async def test_a_step_of_a_run_whose_memory_was_lost_is_stopped(sqlite_url):
    begun, stopped = [], []

    @step
    async def stops() -> str:
        begun.append(1)
        if len(begun) == 2:
            return "again"
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(1)

    @workflow(name="stops-once")
    async def stops_once(ctx: Context) -> str:
        return await ctx.step(stops)

    async with Engine.open(sqlite_url, [stops_once]) as engine:
        handle = await engine.start(stops_once)
        await wait_until(lambda: begun)
        engine.residence.run_lost(engine.residence.executors[handle.id], CommitFailed("the disk is full"))
        assert await handle.result(10) == "again"
        assert stopped


async def test_a_child_that_could_not_be_inserted_is_started_again(database_url):
    @workflow(name="parent")
    async def parent(ctx: Context) -> int:
        await ctx.wait_signal(address_changed)
        return await ctx.child(doubling, 4)

    async with Engine.open(database_url, [parent, doubling]) as engine:
        handle = await engine.start(parent)
        await waits(engine, handle.id)
        write, failures = engine.database.write, []

        def failing_insert(*writes, **rest):
            if not failures and any(w.statement.name == "insert_run" for w in writes):
                failures.append(1)
                future = asyncio.get_running_loop().create_future()
                asyncio.get_running_loop().call_soon(future.set_exception, CommitFailed("lost"))
                return future
            return write(*writes, **rest)

        engine.database.write = failing_insert
        await handle.signal(address_changed, "go")
        assert await handle.result(10) == 8
        assert failures


@workflow(name="slow-child")
async def slow_child(ctx: Context) -> str:
    return await ctx.wait_signal(address_changed)


@workflow(name="parent-of-slow")
async def parent_of_slow(ctx: Context) -> str:
    return await ctx.child(slow_child)


async def child_of(engine, run_id):
    async def find():
        return (await engine.database.read(queries.list_runs, queries.RunFilter(parent=run_id))).items

    return (await wait_until(find))[0].id


async def test_a_childs_end_reaches_a_parent_that_just_leaves(database_url):
    async with Engine.open(database_url, [parent_of_slow, slow_child]) as engine:
        handle = await engine.start(parent_of_slow)
        child = await child_of(engine, handle.id)
        await wait_until(lambda: engine.residence.is_quiet)
        ended = engine.residence.run_ended

        def evict_parent(executor, saving):
            ended(executor, saving)
            parent = engine.residence.executors.get(handle.id)
            if executor.run.id == child and parent is not None and parent.is_resting:
                engine.residence._evict(parent)

        engine.residence.run_ended = evict_parent
        await engine.handle(child).signal(address_changed, "grown up")
        assert await handle.result(10) == "grown up"


async def test_a_parent_that_is_loaded_again_before_its_childs_end_is_saved_hears_of_that_end(database_url):
    async with Engine.open(database_url, [parent_of_slow, slow_child]) as engine:
        handle = await engine.start(parent_of_slow)
        child = await child_of(engine, handle.id)
        await wait_until(lambda: engine.residence.is_quiet)
        lost, write, commit = [], engine.database.write, engine.database._committer._commit

        async def slow_commit(group):
            if any(w.statement is UPDATE_RUN and w.row[-1] == child for member in group for w in member.writes):
                await wait_until(lambda: lost and engine.residence.executors.get(handle.id) not in (None, *lost))
            await commit(group)

        def full_once(*writes, **rest):
            if not lost and any(w.statement is APPEND_HISTORY and w.row.kind == "child" for w in writes):
                lost.append(engine.residence.executors[handle.id])
                raise CommitQueueFull("the queue is full")
            return write(*writes, **rest)

        engine.database.write, engine.database._committer._commit = full_once, slow_commit
        await engine.handle(child).signal(address_changed, "grown up")
        assert await handle.result(10) == "grown up"
        assert lost


@pytest.mark.parametrize("refused", ["in the commit", "before it"])
async def test_a_parent_that_cannot_be_woken_now_is_woken_later(sqlite_url, refused):
    async with Engine.open(sqlite_url, [parent_of_slow, slow_child], limits=Limits(idle_seconds=0)) as engine:
        handle = await engine.start(parent_of_slow)
        child = await child_of(engine, handle.id)

        async def everybody_left():
            engine.residence.evict_idle()
            return not engine.residence.executors

        await wait_until(everybody_left)
        write, wakings = engine.database.write, []

        def refuse_once(*writes, **rest):
            if writes and writes[0].statement is WAKE_RUN and not wakings:
                wakings.append(writes)
                if refused == "before it":
                    raise CommitQueueFull("the queue is full")
                saving = asyncio.get_running_loop().create_future()
                saving.set_exception(CommitFailed("the disk is full"))
                return saving
            return write(*writes, **rest)

        engine.database.write = refuse_once
        await engine.handle(child).signal(address_changed, "grown up")
        assert await handle.result(10) == "grown up"
        assert wakings


async def test_a_crash_before_the_parent_was_woken_leaves_no_parent_behind(database_url):
    async with Engine.open(database_url, [parent_of_slow, slow_child], limits=Limits(idle_seconds=0)) as engine:
        handle = await engine.start(parent_of_slow, id="left-behind")
        child = await child_of(engine, handle.id)

        async def everybody_left():
            engine.residence.evict_idle()
            return not engine.residence.executors

        await wait_until(everybody_left)
        write = engine.database.write

        def crash_before_waking(*writes, **rest):
            if writes and writes[0].statement is WAKE_RUN:
                return asyncio.get_running_loop().create_future()
            return write(*writes, **rest)

        engine.database.write = crash_before_waking
        await engine.handle(child).signal(address_changed, "grown up")
        assert await engine.handle(child, slow_child).result(10) == "grown up"
        await wait_until(lambda: engine.residence.kinship.waking)
    async with Engine.open(database_url, [parent_of_slow, slow_child]) as engine:
        assert await engine.handle("left-behind", parent_of_slow).result(10) == "grown up"


async def test_an_idempotency_key_without_a_principal_is_one_run_too(database_url):
    async with Engine.open(database_url, [doubling]) as engine:
        one = await engine.start(doubling, 4, idempotency_key="k")
        assert (await engine.start(doubling, 4, idempotency_key="k")).id == one.id


async def test_a_cancelled_child_hears_of_it_even_while_it_leaves_memory(database_url):
    async with Engine.open(database_url, [parent_of_slow, slow_child]) as engine:
        handle = await engine.start(parent_of_slow)
        child = await child_of(engine, handle.id)
        await wait_until(lambda: engine.residence.is_quiet)
        cancel_child = engine.residence.kinship.cancel_child

        def evict_child(parent, operation):
            cancel_child(parent, operation)
            engine.residence._evict(engine.residence.executors[child])

        engine.residence.kinship.cancel_child = evict_child
        await handle.cancel()
        with pytest.raises(RunCancelled):
            await handle.result(10)
        assert await status_of(engine, child) == "cancelled"


async def test_an_update_of_a_run_that_ends_without_an_answer_is_rejected(database_url):
    async with Engine.open(database_url, [slow_child]) as engine:
        handle = await engine.start(slow_child)
        asking = asyncio.ensure_future(handle.update(change_quantity, 1, timeout=10))
        await wait_until(lambda: _was_sent(engine, handle.id))
        await handle.signal(address_changed, "the end")
        with pytest.raises(UpdateRejected, match="the run has completed"):
            await asking


async def _was_sent(engine, run_id):
    return await engine.database.read(lambda c: c.scalar(select(messages.c.number).where(messages.c.run == run_id)))


async def test_the_pause_before_a_retry_is_kept_by_a_run_that_is_woken_early(database_url):
    attempts = []

    @step(retries=1, backoff=Backoff(initial=timedelta(hours=1), maximum=timedelta(hours=1), jitter=0))
    async def fails_once() -> int:
        attempts.append(1)
        if len(attempts) == 1:
            raise ConnectionError("away")
        return len(attempts)

    @workflow(name="patient")
    async def patient(ctx: Context) -> int:
        return await ctx.step(fails_once)

    async with environment(database_url, [patient], limits=Limits(idle_seconds=0)) as env:
        handle = await env.engine.start(patient)
        begun_at = env.now
        await env.until_resting()
        env.engine.residence.evict_idle()
        await wait_until(lambda: not env.engine.residence.executors)
        await handle.signal(address_changed, "nobody waits for this")
        await wait_until(lambda: env.engine.residence.executors)
        await env.until_resting()
        assert len(attempts) == 1
        assert await env.result(handle) == 2
        assert env.now - begun_at >= timedelta(hours=1)


class Picky(Exception):
    def __new__(cls, *args):
        if args:
            raise ValueError("made by nobody else")
        return super().__new__(cls)

    def __init__(self):
        super().__init__("picky")


class Frozen(Exception):
    args = property(lambda self: ("frozen",))


class Secretive(Exception):
    @property
    def args(self):
        raise RuntimeError("ask somebody else")


class Bare(Exception):
    @property
    def __dict__(self):
        raise RuntimeError("nothing to see")


class Nameless(Exception, metaclass=type("Meta", (type,), {"__name__": property(lambda cls: 1 / 0)})):
    pass


ODD = {kind.__qualname__: kind for kind in (Picky, Frozen, Secretive, Bare, Nameless)}


def raise_odd(name):
    raise ODD[name]


@step(errors=tuple(ODD.values()))
async def odd_step(name: str) -> None:
    raise_odd(name)


@step(errors=tuple(ODD.values()))
def odd_thread(name: str) -> None:
    raise_odd(name)


def odd_transaction(connection, name: str) -> None:
    raise_odd(name)


@workflow(name="odd")
async def odd(ctx: Context, where: str) -> None:
    """Fail oddly there."""
    where, _, name = where.partition(" ")
    match where:
        case "step":
            await ctx.step(odd_step, name)
        case "thread":
            await ctx.step(odd_thread, name)
        case "transaction":
            await ctx.transaction(odd_transaction, name)
        case "child":
            await ctx.child(odd, f"itself {name}")
        case _:
            raise_odd(name)


@pytest.mark.parametrize("where", ["step", "thread", "transaction", "child", "itself"])
async def test_an_error_whose_class_does_as_it_likes_ends_its_run(database_url, where):
    async with Engine.open(database_url, [odd]) as engine:
        for name in ODD:
            handle = await engine.start(odd, f"{where} {name}")
            with pytest.raises((StepFailed, RunFailed)):
                await handle.result(10)
            assert await handle.status() == "failed"


def grade(connection: Connection, subject: str) -> None:
    raise ValueError(f"grading failed: {subject}")


@workflow(name="grades")
async def grades(ctx: Context, subject: str) -> None:
    await ctx.transaction(grade, subject)


async def test_whatever_a_transaction_function_says_of_its_failure_it_has_failed(database_url):
    """These words were taken for those of a commit that nobody had heard of: the run was loaded again for ever."""
    async with Engine.open(database_url, [grades]) as engine:
        with pytest.raises(ValueError, match="grading"):
            await (await engine.start(grades, "history. It is hard")).result(10)
