"""A worker that stops, or dies, leaves nothing behind that only it looks after: not in its last commits either."""

import asyncio
import contextlib
import zlib
from contextlib import asynccontextmanager

import asyncpg
import flows
import pytest
from flows import doubling
from sqlalchemy import func, insert, select, text

from lib_events.testing import wait_until
from lib_workflows import Context, Engine, step, workflow
from lib_workflows.reading import queries
from lib_workflows.tables import runs, workers
from lib_workflows.workers import residence

pytestmark = pytest.mark.postgresql

LEASE_SECONDS = 0.5
FAMILIES = """
    INSERT INTO runs (
        id, workflow, version, queue, priority, status, correlation_id, look_back_position, wakes, created_at,
        parent, ended_at, waiting_for
    )
    SELECT kind || number, 'elsewhere', 1, 'elsewhere', 0, status, kind || number, 0, 0, 0,
        CASE kind WHEN 'child' THEN 'parent' || number END, ended_at, waiting_for
    FROM generate_series(1, :families) AS number, (
        VALUES ('parent', 'waiting', NULL, '[{"kind"\\:"child"}]'), ('child', 'completed', 1, NULL)
    ) AS kinds (kind, status, ended_at, waiting_for)
"""
PARENTS = 33_000  # PostgreSQL takes 32,767 parameters


WAITS = """
    CREATE FUNCTION "{schema}".waits() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_advisory_xact_lock_shared({key}); RETURN NEW; END $$;
    CREATE TRIGGER waits BEFORE INSERT ON "{schema}".{table} FOR EACH ROW EXECUTE FUNCTION "{schema}".waits();
"""


@asynccontextmanager
async def slow_commits(table, url):
    """A commit with rows for `table` takes as long as the block; gives how many statements wait meanwhile."""
    server, _, schema = url.rpartition("schema=")
    connection, key = await asyncpg.connect(server.rstrip("?&")), zlib.crc32(schema.encode())

    async def waiting():
        return await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted")

    try:
        await connection.execute(WAITS.format(schema=schema, table=table, key=key))
        await connection.execute("SELECT pg_advisory_lock($1)", key)
        yield waiting
    finally:
        await connection.close()


async def lives(engine):
    return await engine.database.read(lambda c: c.scalar(select(func.count()).select_from(workers)))


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(residence, "DRAIN_SECONDS", 0.1)


async def test_a_run_whose_start_is_saved_as_its_worker_ends_goes_on_elsewhere(postgresql_url, impatient):
    """It was acknowledged, and belonged to a life that was over: nobody ever looked after it again."""
    async with Engine.open(postgresql_url, [doubling], lease_seconds=LEASE_SECONDS) as other:
        ending = contextlib.AsyncExitStack()
        first = await ending.enter_async_context(Engine.open(postgresql_url, [doubling], lease_seconds=LEASE_SECONDS))
        async with slow_commits("events", postgresql_url) as waiting:
            starting = asyncio.ensure_future(first.start(doubling, 4))
            await wait_until(waiting)
            end = asyncio.ensure_future(ending.aclose())

            async def ends_its_life():
                return await waiting() > 1

            await wait_until(ends_its_life)
        await end
        handle = await starting
        assert await other.handle(handle.id, doubling).result(10) == 8
        assert await lives(other) == 1


class Gate:
    """Where steps wait for the test."""

    def __init__(self):
        self.opened = asyncio.Event()


gate = Gate()


@pytest.fixture(autouse=True)
def shut_gate():
    gate.opened = asyncio.Event()


@step
async def one() -> str:
    flows.calls.append("one")
    return "one"


@step
async def other() -> str:
    await gate.opened.wait()
    flows.calls.append("other")
    return "other"


@workflow(name="two-at-once")
async def two_at_once(ctx: Context) -> list[str]:
    return await ctx.gather(ctx.step(one), ctx.step(other))


async def test_a_step_that_is_done_as_its_worker_stops_is_not_done_again_elsewhere(postgresql_url):
    async with Engine.open(postgresql_url, [two_at_once], lease_seconds=LEASE_SECONDS) as second:
        ending = contextlib.AsyncExitStack()
        first = await ending.enter_async_context(
            Engine.open(postgresql_url, [two_at_once], lease_seconds=LEASE_SECONDS)
        )
        async with slow_commits("history", postgresql_url) as waiting:
            handle = await first.start(two_at_once)
            await wait_until(waiting)  # with what one step gave; what the other gives is for the group behind it
            gate.opened.set()
            await wait_until(lambda: flows.calls == ["one", "other"])
            end = asyncio.ensure_future(ending.aclose())
            await wait_until(lambda: first.residence.is_draining)
        await end
        assert await second.handle(handle.id, two_at_once).result(10) == ["one", "other"]
    assert flows.calls == ["one", "other"]


@workflow(name="errand", queue="errands")
async def errand(ctx: Context) -> str:
    return "run"


@step
async def wait_for_the_test() -> str:
    await gate.opened.wait()
    return "worked"


@workflow(name="has-an-errand-run", queue="work")
async def has_an_errand_run(ctx: Context) -> list[str]:
    return await ctx.gather(ctx.child(errand), ctx.step(wait_for_the_test))


async def test_a_parent_at_work_elsewhere_hears_of_a_child_whose_worker_died_before_it_could_say(postgresql_url):
    """Its row does not say that it waits for the child, too: it waited for ever once its work was done."""
    options = {"lease_seconds": LEASE_SECONDS}
    async with Engine.open(postgresql_url, [has_an_errand_run], queues=["work"], **options) as parents:
        async with Engine.open(postgresql_url, [errand], queues=["errands"], **options) as children:
            children.residence.kinship._wake_parent = lambda parent_id: None  # it dies in this very moment
            handle = await parents.start(has_an_errand_run)

            async def ended():
                return await parents.database.read(queries.count_runs) == {"running": 1, "completed": 1}

            await wait_until(ended)
            await children.abandon()

            async def is_taken_over():
                return await lives(parents) == 1

            await wait_until(is_taken_over)
        gate.opened.set()
        assert await handle.result(10) == ["run", "worked"]


async def test_a_worker_is_taken_over_however_many_runs_wait_for_children_that_have_ended(postgresql_url):
    """More than one statement takes parameters: the takeover failed, again and again, and nobody took its runs."""

    def leave_behind(connection):
        connection.execute(insert(workers).values(id="gone", epoch=1, lease_until_at=0, started_at=0))
        connection.execute(text(FAMILIES), {"families": PARENTS})

    async with Engine.open(postgresql_url, [doubling], lease_seconds=LEASE_SECONDS) as engine:
        await engine.database.transact(leave_behind)

        async def is_taken_over():
            return await lives(engine) == 1

        await wait_until(is_taken_over)
        woken = select(func.count()).where(runs.c.wakes > 0)
        assert await engine.database.read(lambda connection: connection.scalar(woken)) == PARENTS
