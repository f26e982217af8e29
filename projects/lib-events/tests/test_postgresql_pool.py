"""Connections are lent: as many as are needed at once for a while, and each to one at a time."""

import asyncio
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from sqlalchemy import text

from lib_events.database import open_database
from lib_events.event_log import SCHEMA

pytestmark = pytest.mark.postgresql
BOUND_SECONDS = 20


@pytest_asyncio.fixture
async def database(postgresql_url):
    opened = await open_database(postgresql_url, service="test-svc", schemas=[SCHEMA])
    yield opened
    await opened.close()


def backend(connection):
    return connection.scalar(text("SELECT pg_backend_pid()"))


async def test_transactions_that_begin_at_once_share_a_connection_while_they_are_short(database):
    database._pool._making_seconds = BOUND_SECONDS
    backends = await asyncio.gather(*(database.transact(backend) for _ in range(10)))
    assert len(set(backends)) == 1


async def test_whoever_finds_all_lent_for_longer_gets_one_more(database):
    async with asyncio.timeout(BOUND_SECONDS), AsyncExitStack() as stack:
        lent = [(await stack.enter_async_context(database._pool.lend())).raw for _ in range(3)]
        assert len({raw.get_server_pid() for raw in lent}) == 3


async def test_many_who_ask_again_and_again_get_a_connection_each(database):
    """Waiting in turns for a few would be slower, however short each wait is."""
    many = 5

    async def transact_until_all_have_one():
        while len(database._pool._idle) + database._pool._lent < many:
            await database.transact(backend)

    async with asyncio.timeout(BOUND_SECONDS):
        await asyncio.gather(*(transact_until_all_have_one() for _ in range(many)))


async def test_one_that_is_given_back_goes_to_whoever_has_waited_longest(database):
    database._pool._making_seconds = BOUND_SECONDS
    order = []

    async def borrow(name):
        async with database._pool.lend():
            order.append(name)

    async with database._pool.lend():
        waiting = [asyncio.create_task(borrow(name)) for name in ("first", "second")]
        await asyncio.sleep(0)
    await borrow("who comes later")
    await asyncio.gather(*waiting)
    assert order == ["first", "second", "who comes later"]


async def test_whoever_gives_up_waiting_takes_no_connection_along(database):
    database._pool._making_seconds = BOUND_SECONDS
    async with database._pool.lend() as only:
        waiting = [asyncio.create_task(database.transact(backend)) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()  # while it waits
    waiting[1].cancel()  # in the moment in which it has been given one
    await asyncio.wait(waiting)
    assert await database.transact(backend) == only.raw.get_server_pid()
