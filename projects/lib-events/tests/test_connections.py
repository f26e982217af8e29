"""Connections to PostgreSQL: lost, not to be had, and given back."""

import asyncio
import uuid
from urllib.parse import quote

import pytest
from sqlalchemy import func, insert, select, text

from lib_events.adapters import postgresql_pool
from lib_events.database import CommitFailed, DatabaseUnavailable, is_database_failure, open_database
from lib_events.event_log import SCHEMA
from lib_events.tables import subscription_cursors
from lib_events.testing import wait_until

pytestmark = pytest.mark.postgresql


def note(connection, number):
    connection.execute(insert(subscription_cursors).values(durable=f"d{number}", position=number, updated_at=0))
    return number


def count(connection):
    return connection.scalar(select(func.count()).select_from(subscription_cursors))


@pytest.mark.parametrize("word", ["a+b", "a&b", "a%41b", "a#b"])
async def test_what_an_option_of_the_url_says_reaches_the_driver_as_it_is_meant(postgresql_url, word):
    """A password, a folder or a certificate may have any character, quoted as URLs have it."""
    said = f"{postgresql_url}&own.word={quote(word, safe='')}"
    database = await open_database(said, service="test-svc", schemas=[SCHEMA])
    try:
        heard = text("SELECT current_setting('own.word')")
        assert await database.read(lambda connection: connection.scalar(heard)) == word
    finally:
        await database.close()


async def test_a_connection_that_dies_under_a_function_is_not_the_functions_error(postgresql_url):
    def die(connection):
        connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    database = await open_database(postgresql_url, service="test-svc", schemas=[SCHEMA])
    try:
        with pytest.raises(CommitFailed, match="was lost"):
            await database.transact(die)
        assert await database.transact(note, 1) == 1
    finally:
        await database.close()


async def test_a_server_that_is_away_is_nobodys_error_but_the_databases(postgresql_url, monkeypatch):
    database = await open_database(postgresql_url, service="test-svc", schemas=[SCHEMA])
    await database._pool.close()
    monkeypatch.setattr(database, "_dsn", "postgresql://127.0.0.1:1/nowhere")
    for ask in (database.transact, database.read):
        with pytest.raises(DatabaseUnavailable, match="cannot be reached") as raised:
            await ask(count)
        assert is_database_failure(raised.value)
    monkeypatch.undo()
    assert await database.transact(note, 1) == 1
    await database.close()


async def test_a_socket_at_which_nobody_listens_is_said_to_be_one(tmp_path):
    with pytest.raises(DatabaseUnavailable, match="at the given socket cannot be used"):
        await open_database(f"postgresql:///evs?host={tmp_path}", service="test-svc", schemas=[SCHEMA])


async def test_connections_that_a_burst_has_made_are_given_back(postgresql_url, monkeypatch):
    service = f"burst-{uuid.uuid4().hex[:8]}"
    count_ours = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = :service")

    async def connections():
        return await database.read(lambda c: c.execute(count_ours, {"service": service}).scalar_one())

    def pause(connection):
        connection.execute(text("SELECT pg_sleep(0.2)"))

    database = await open_database(postgresql_url, service=service, schemas=[SCHEMA])
    few = await connections()
    await asyncio.gather(*(database.transact(pause) for _ in range(12)))
    assert await connections() >= few + 8
    monkeypatch.setattr(postgresql_pool, "UNUSED_SECONDS", 0.0)

    async def are_few_again():
        return await connections() <= few

    await wait_until(are_few_again)
    assert await asyncio.gather(*(database.transact(note, number) for number in range(12)))
    await database.close()
