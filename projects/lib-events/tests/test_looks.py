"""A few rows by their keys: looks of the same moment share what they cost, and nothing else."""

import asyncio
import sqlite3
from contextlib import closing

import pytest
import pytest_asyncio
from sqlalchemy import bindparam, insert, select, text
from sqlalchemy.exc import DBAPIError

from lib_events.adapters import sqlite as sqlite_adapter
from lib_events.database import DatabaseUnavailable, open_database
from lib_events.event_log import SCHEMA
from lib_events.prepared import Prepared
from lib_events.tables import subscription_cursors

MANY = 60
CURSORS = subscription_cursors.c
KEEP = "INSERT INTO subscription_cursors (durable, position, updated_at) VALUES (?, 1, 0)"


@pytest_asyncio.fixture
async def database(database_url):
    opened = await open_database(database_url, service="test-svc", schemas=[SCHEMA])
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def on_postgresql(postgresql_url):
    opened = await open_database(postgresql_url, service="test-svc", schemas=[SCHEMA])
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def on_sqlite(tmp_path):
    opened = await open_database(f"sqlite:///{tmp_path}/looks.db", service="test-svc", schemas=[SCHEMA])
    yield opened
    await opened.close()


def keep(connection, durable):
    connection.execute(insert(subscription_cursors).values(durable=durable, position=1, updated_at=0))


def keep_and_tell(connection, durable):
    keep(connection, durable)
    connection.notify("kept")


def number(connection, given):
    return connection.scalar(text("SELECT CAST(:given AS INTEGER)"), {"given": given})


def count(connection):
    return connection.scalar(text("SELECT count(*) FROM subscription_cursors"))


async def test_everybody_who_looks_at_once_gets_their_own_answer(database):
    looks = (database.look(number, given) for given in range(MANY))
    assert await asyncio.gather(*looks) == list(range(MANY))


async def test_a_look_sees_what_was_committed_before_it_began(database):
    async def keep_and_look(given):
        await database.transact(keep, f"d{given}")
        return await database.look(count)

    seen = await asyncio.gather(*(keep_and_look(given) for given in range(MANY)))
    assert max(seen) == MANY
    assert all(many >= 1 for many in seen)
    assert await database.look(count) == MANY


async def test_a_statement_that_fails_fails_only_who_looked_with_it(database):
    def wrong(connection):
        return connection.scalar(text("SELECT nothing FROM nowhere"))

    wanted = [wrong if given % 7 == 3 else number for given in range(MANY)]
    looks = [
        database.look(wrong) if function is wrong else database.look(number, given)
        for given, function in enumerate(wanted)
    ]
    answers = await asyncio.gather(*looks, return_exceptions=True)
    for given, (function, answer) in enumerate(zip(wanted, answers, strict=True)):
        assert isinstance(answer, DBAPIError) if function is wrong else answer == given


async def test_looks_of_one_moment_ask_the_same_once_and_later_ones_anew(on_postgresql):
    named = Prepared(select(CURSORS).where(CURSORS.durable == bindparam("durable")))

    def find(connection, durable):
        return connection.row(named, durable=durable)

    await on_postgresql.transact(keep, "a")
    wanted = ["a" if number % 3 else "b" for number in range(MANY)]
    found = await asyncio.gather(*(on_postgresql.look(find, durable) for durable in wanted))
    assert [row.durable if row else "b" for row in found] == wanted
    await on_postgresql.transact(keep, "b")
    assert (await on_postgresql.look(find, "b")).durable == "b"


async def test_an_error_of_the_function_is_its_own(database):
    def fail(_connection):
        raise LookupError("mine")

    answers = await asyncio.gather(
        database.look(number, 1), database.look(fail), database.look(number, 2), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [int, LookupError, int]


async def test_looking_cannot_write(database):
    with pytest.raises(DBAPIError):
        await database.look(keep, "a")
    assert await database.look(count) == 0


async def test_whoever_stops_waiting_leaves_the_others_their_answers(on_postgresql):
    leaving = asyncio.ensure_future(on_postgresql.look(number, 1))
    staying = asyncio.ensure_future(on_postgresql.look(number, 2))
    await asyncio.sleep(0)  # let both ask
    leaving.cancel()
    assert await staying == 2
    assert leaving.cancelled()


async def test_a_connection_that_dies_is_told_and_replaced(on_postgresql):
    def die(connection):
        connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(DatabaseUnavailable):
        await on_postgresql.look(die)
    assert await on_postgresql.look(number, 3) == 3
    assert await on_postgresql.read(number, 4) == 4


async def test_connections_are_lent_again_and_never_more_than_the_limit(on_postgresql):
    def whose(connection):
        connection.execute(text("SELECT pg_sleep(0.01)"))  # long enough to be busy at once
        return connection.scalar(text("SELECT pg_backend_pid()"))

    first = await on_postgresql.read(whose)
    assert await on_postgresql.read(whose) == first
    many = await asyncio.gather(*(on_postgresql.read(whose) for _ in range(MANY)))
    assert first in many
    assert 1 < len(set(many)) <= 20


async def test_looks_of_one_turn_share_a_snapshot_of_a_file_and_the_next_turn_has_its_own(on_sqlite):
    with closing(sqlite3.connect(on_sqlite.path)) as other:
        assert await on_sqlite.look(count) == 0
        other.execute(KEEP, ("a",))
        other.commit()
        assert await on_sqlite.look(count) == 0
        await asyncio.sleep(0)  # the next turn
        assert await on_sqlite.look(count) == 1


async def test_whoever_is_told_of_a_commit_sees_it_in_the_same_turn(on_sqlite, monkeypatch):
    monkeypatch.setattr(sqlite_adapter, "QUICK_SECONDS", 60.0)  # the loop commits itself
    seen = []

    def look_at_once():
        with pytest.raises(StopIteration) as answer:
            on_sqlite.look(count).send(None)  # as a task that is begun eagerly does
        seen.append(answer.value.value)

    on_sqlite.on_notify("kept", look_at_once)
    saving = asyncio.ensure_future(on_sqlite.transact(keep_and_tell, "a"))
    await asyncio.sleep(0)  # it is asked for, and comes next
    assert await on_sqlite.look(count) == 0
    await saving
    assert seen == [1]


async def test_a_look_that_fails_ends_its_snapshot(on_sqlite):
    with closing(sqlite3.connect(on_sqlite.path)) as other:
        assert await on_sqlite.look(count) == 0
        other.execute(KEEP, ("a",))
        other.commit()
        with pytest.raises(ZeroDivisionError):
            await on_sqlite.look(lambda _: 1 / 0)
        assert await on_sqlite.look(count) == 1
