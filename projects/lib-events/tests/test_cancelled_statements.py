"""Statements that an operator cancels, or a limit of the role: they did nothing, and only the database is at fault."""

import asyncio

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import insert, select, text, update

from lib_events.adapters import postgresql_backends, postgresql_leads
from lib_events.adapters.postgresql_backends import Backend
from lib_events.database import CommitFailed, DatabaseUnavailable, open_database
from lib_events.event_log import SCHEMA
from lib_events.statement import Statement, Write
from lib_events.tables import subscription_cursors
from lib_events.testing import wait_until

pytestmark = pytest.mark.postgresql
CURSORS = subscription_cursors.c
UPDATE = "UPDATE subscription_cursors SET position = rows.position FROM {rows} WHERE durable = 'a'"
MOVE = Statement("move", "", UPDATE, (("position", "bigint"),))
CANCEL = """
    SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity
    WHERE wait_event_type IN ('Lock', 'Timeout') AND pid <> pg_backend_pid() AND query LIKE $1
"""


@pytest_asyncio.fixture
async def database(postgresql_url):
    opened = await open_database(postgresql_url, service="test-svc", schemas=[SCHEMA])
    await opened.transact(keep)
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def operator(database):
    connection = await database.connect()
    yield connection
    await connection.close()


def keep(connection):
    connection.execute(insert(subscription_cursors).values(durable="a", position=1, updated_at=0))


def move(connection, position):
    connection.execute(update(subscription_cursors).where(CURSORS.durable == "a").values(position=position))


def where(connection):
    return connection.scalar(select(CURSORS.position).where(CURSORS.durable == "a"))


def sleep(connection):
    return connection.scalar(text("SELECT pg_sleep(600)"))


async def cancel(operator, part):
    """Cancel the statement that has that part, once it waits: before it is executed, nothing is cancelled."""
    await wait_until(lambda: operator.fetchval(CANCEL, f"%{part}%"))


async def test_whoever_waits_for_it_is_told_to_try_again(database, operator):
    for ask, expected in ((database.transact, CommitFailed), (database.read, DatabaseUnavailable)):
        asked = asyncio.ensure_future(ask(sleep))
        await cancel(operator, "pg_sleep")
        with pytest.raises(expected, match="canceling statement due to user request; try again"):
            await asked
    looked = asyncio.ensure_future(database.look(sleep))
    await cancel(operator, "pg_sleep")
    with pytest.raises(DatabaseUnavailable, match="try again"):
        await looked


async def test_a_commit_is_made_once_more(database, operator):
    """Its rows are made of what is in memory: whoever decided upon them would do all that once more."""
    async with operator.transaction():
        await operator.execute("SELECT FROM subscription_cursors FOR UPDATE")
        others = await database.connect()
        moved = database.write(Write(MOVE, (3,)))
        await cancel(others, "SET position = rows.position")
        await others.close()
    await moved
    assert await database.read(where) == 3


async def test_a_commit_that_waits_for_longer_than_the_role_may_is_made_once_more(postgresql_url, database, operator):
    hasty = await open_database(f"{postgresql_url}&lock_timeout=100ms", service="test-svc", schemas=[SCHEMA])
    try:
        async with operator.transaction():
            await operator.execute("SELECT FROM subscription_cursors FOR UPDATE")
            with pytest.raises(CommitFailed, match="canceling statement due to lock timeout; try again"):
                await hasty.transact(move, 4)
            moved = hasty.write(Write(MOVE, (5,)))
            await asyncio.wait([moved], timeout=0.2)
            assert not moved.done()
        await moved
        assert await database.read(where) == 5
    finally:
        await hasty.close()


async def test_a_lost_backend_is_ended_although_whoever_ends_it_was_cancelled(database, operator, monkeypatch):
    """What it was asked would come true after all that was asked later."""
    others = await database.connect()
    slowly = postgresql_backends.END.replace("WHERE", "CROSS JOIN pg_sleep(600) WHERE")
    async with operator.transaction():
        await operator.execute("SELECT FROM subscription_cursors FOR UPDATE")
        late = await database.connect()
        backend = await Backend.of(late)
        asked = asyncio.ensure_future(late.execute("UPDATE subscription_cursors SET position = 6"))
        await wait_until(lambda: others.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
        database._lost.add(backend)
        with monkeypatch.context() as patch:
            patch.setattr(postgresql_backends, "END", slowly)
            moved = database.write(Write(MOVE, (7,)))
            await cancel(others, "pg_sleep")

        async def has_ended():
            await others.fetchval(CANCEL, "%pg_sleep%")
            return asked.done()

        await wait_until(has_ended)
        with pytest.raises(asyncpg.PostgresError, match="due to administrator command"):
            await asked
    await moved
    await others.close()
    assert await database.read(where) == 7


async def lead(database, until):
    async with database.leading("relay"):
        await until.wait()


async def test_a_lead_that_nobody_could_free_is_free(postgresql_url, database, operator, monkeypatch):
    """Its process would lead on, without doing anything, for as long as it lives."""
    now, other = asyncio.Event(), await open_database(postgresql_url, service="test-svc", schemas=[SCHEMA])
    now.set()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(postgresql_leads, "FREE", f"{postgresql_leads.FREE} FROM pg_sleep(600)")
            leading = asyncio.ensure_future(lead(database, now))
            await cancel(operator, "pg_advisory_unlock")
            await leading
        await asyncio.wait_for(lead(other, now), 20)
    finally:
        await other.close()


async def test_a_lead_that_was_taken_by_a_cancelled_statement_is_free(postgresql_url, database, operator, monkeypatch):
    """A lock of a session stays with it, whatever becomes of the statement that has taken it."""
    now, other = asyncio.Event(), await open_database(postgresql_url, service="test-svc", schemas=[SCHEMA])
    now.set()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(postgresql_leads, "TRY", f"{postgresql_leads.TRY} AND pg_sleep(600) IS NOT NULL")
            leading = asyncio.ensure_future(lead(database, now))
            await cancel(operator, "pg_try_advisory_lock")
        await leading
        await asyncio.wait_for(lead(other, now), 20)
    finally:
        await other.close()
