"""Databases of tests are copies of one with their tables, made when they are opened, and gone when they are left."""

import asyncio

import asyncpg
import pytest
from sqlalchemy import func, select

from lib_events.adapters.postgresql import PostgresqlDatabase
from lib_events.event import Event, EventType
from lib_events.event_log import SCHEMA
from lib_events.tables import events

pytestmark = pytest.mark.postgresql

Noted = EventType("test.noted", dict)


@pytest.fixture
def copies(postgresql_copies):
    if postgresql_copies is None:
        pytest.skip("needs a PostgreSQL of the tests' own")
    return postgresql_copies


async def opened(url):
    return await PostgresqlDatabase.open(url, service="app-svc", schemas=[SCHEMA])


async def number_of_events(database):
    return await database.read(lambda connection: connection.scalar(select(func.count()).select_from(events)))


async def test_each_has_the_tables_and_nothing_of_another(copies):
    urls = [copies.new_url() for _ in range(2)]
    first, second = [await opened(url) for url in urls]
    await first.write(events=[Event.of(Noted, {"number": 1}, source="/app-svc")])
    assert [await number_of_events(database) for database in (first, second)] == [1, 0]
    for database, url in zip((first, second), urls, strict=True):
        await database.close()
        copies.leave(url)


async def test_whoever_opens_one_at_once_has_the_same(copies):
    url = copies.new_url()
    first, second = await asyncio.gather(opened(url), opened(url))
    await first.write(events=[Event.of(Noted, {"number": 1}, source="/app-svc")])
    assert await number_of_events(second) == 1
    await first.close()
    await second.close()
    copies.leave(url)


async def test_one_that_was_left_goes_when_the_next_comes_whoever_is_still_in_it(copies, postgresql_server):
    left, never_made, following = (copies.new_url() for _ in range(3))
    database = await opened(left)
    for url in (left, never_made):
        copies.leave(url)
    following_database = await opened(following)
    administrator = await asyncpg.connect(postgresql_server)
    names = {row["datname"] for row in await administrator.fetch("SELECT datname FROM pg_database")}
    assert [url.partition("?")[0].rpartition("/")[2] in names for url in (left, never_made, following)] == [
        False,
        False,
        True,
    ]
    await administrator.close()
    for each in (database, following_database):
        await each.close()
    copies.leave(following)
