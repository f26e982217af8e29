"""Lost connections to PostgreSQL: what they were asked last does not come true once others go on."""

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
import pytest_asyncio
from sqlalchemy import insert, select, text, update

from lib_events.adapters import postgresql_blockers
from lib_events.adapters.postgresql_backends import Backend, LostBackends
from lib_events.database import CommitFailed, open_database
from lib_events.event_log import SCHEMA
from lib_events.statement import Statement, Write
from lib_events.tables import subscription_cursors
from lib_events.testing import wait_until
from lib_events.testing.line import Line

pytestmark = pytest.mark.postgresql

MOVE = Statement(
    "move_place",
    "UPDATE subscription_cursors SET position = ?2 WHERE durable = ?1",
    "UPDATE subscription_cursors SET position = rows.position FROM {rows} "
    "WHERE subscription_cursors.durable = rows.durable",
    (("durable", "text"), ("position", "bigint")),
)


@pytest_asyncio.fixture
async def line(postgresql_url, free_port):
    async with Line(postgresql_url, port=free_port) as opened:
        yield opened


@pytest_asyncio.fixture
async def database(line):
    opened = await open_database(line.url, service="cut-svc", schemas=[SCHEMA])
    await opened.transact(make_places)
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def other(postgresql_url, database):
    opened = await open_database(postgresql_url, service="other-svc", schemas=[SCHEMA])
    yield opened
    await opened.close()


def make_places(connection):
    for durable in "ab":
        connection.execute(insert(subscription_cursors).values(durable=durable, position=0, updated_at=0))


def places(connection):
    found = connection.execute(select(subscription_cursors).order_by(subscription_cursors.c.durable))
    return {row.durable: row.position for row in found}


def move(durable, position):
    return Write(MOVE, (durable, position))


@asynccontextmanager
async def held(database, durable):
    """Somebody else holds a row."""
    async with database._pool.lend() as borrowed, borrowed.raw.transaction():
        await borrowed.raw.execute("SELECT 1 FROM subscription_cursors WHERE durable = $1 FOR UPDATE", durable)
        yield


def waiting(connection):
    here = "application_name = 'cut-svc' AND wait_event_type = 'Lock'"
    return connection.scalar(text(f"SELECT count(*) FROM pg_stat_activity WHERE {here}"))


async def until_somebody_waits(database):
    await wait_until(lambda: database.read(waiting))


async def until_nobody_waits(database):
    async def nobody_waits():
        return not await database.read(waiting)

    await wait_until(nobody_waits)


async def test_what_a_lost_connection_was_asked_does_not_come_true_after_what_came_later(line, database, other):
    async with held(other, "a"):
        lost = database.write(move("a", 1), move("b", 1))
        await until_somebody_waits(other)
        line.cut()
        with pytest.raises(CommitFailed):
            await lost
        await database.write(move("b", 2))
    await until_nobody_waits(other)
    assert (await other.read(places))["b"] == 2


async def test_who_looks_after_a_commit_was_lost_sees_what_stays(line, database, other):
    async with held(other, "a"):
        lost = database.write(move("a", 1))
        await until_somebody_waits(other)
        line.cut()
        with pytest.raises(CommitFailed):
            await lost
        seen = await database.read(places)
    await until_nobody_waits(other)
    assert await other.read(places) == seen


async def test_a_function_that_was_lost_with_its_connection_is_over_when_others_go_on(line, database, other):
    def move_a(connection):
        connection.execute(update(subscription_cursors).where(subscription_cursors.c.durable == "a").values(position=1))

    async with held(other, "a"):
        lost = asyncio.ensure_future(database.transact(move_a))
        await until_somebody_waits(other)
        line.cut()
        with pytest.raises(CommitFailed):
            await lost
        await database.read(places)
        assert not await other.read(waiting)


async def test_connections_that_are_cut_again_and_again_do_not_use_up_the_servers(line, database, other):
    def connected(connection):
        return connection.scalar(text("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cut-svc'"))

    async def few_are_left():
        return await other.read(connected) < 15

    for _ in range(3):
        await asyncio.gather(*(database.transact(places) for _ in range(10)))
        await database.write(move("a", 1))
        line.cut()
        await wait_until(lambda: all(idle.raw.is_closed() for idle in database._pool._idle))
    await database.transact(places)
    await wait_until(few_are_left)


async def test_a_backend_that_has_the_number_of_one_that_is_gone_lives_on(database):
    async with database._pool.lend() as one, database._pool.lend() as two:
        backend, lost = await Backend.of(one.raw), LostBackends()
        lost.add(Backend(backend.pid, backend.began - timedelta(microseconds=1)))
        await lost.end(two.raw)
        assert await one.raw.fetchval("SELECT 1") == 1
        lost.add(backend)
        await lost.end(two.raw)
        await wait_until(one.raw.is_closed)


async def test_it_is_told_who_holds_up_all_commits(database, other, monkeypatch, caplog):
    monkeypatch.setattr(postgresql_blockers, "PATIENCE_SECONDS", 0.01)
    async with held(other, "a"):
        written = database.write(move("a", 1))
        await wait_until(lambda: "other-svc, idle in transaction" in caplog.text)
    await written
    await database.write(move("a", 2))
    assert caplog.text.count("all commits have waited") == 1
