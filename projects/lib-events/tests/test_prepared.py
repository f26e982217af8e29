"""Prepared statements say and find what SQLAlchemy would, on both databases."""

import pytest
import pytest_asyncio
from sqlalchemy import bindparam, delete, insert, select, update

from lib_events.database import open_database
from lib_events.event_log import SCHEMA
from lib_events.prepared import Prepared
from lib_events.tables import events, subscription_cursors

CURSORS = subscription_cursors.c
KEEP = Prepared(insert(subscription_cursors).inline(), columns=("durable", "position", "updated_at"))
FIND = Prepared(select(subscription_cursors).where(CURSORS.durable == bindparam("durable")))
MOVE = Prepared(
    update(subscription_cursors)
    .where((CURSORS.durable == bindparam("which")) & (CURSORS.position < bindparam("to")))
    .values(position=bindparam("to"), updated_at=7)
)
FORGET = Prepared(delete(subscription_cursors))
IMPORTED = Prepared(select(events.c.imported, events.c.body, events.c.subject))


@pytest_asyncio.fixture
async def database(database_url):
    opened = await open_database(database_url, service="test-svc", schemas=[SCHEMA])
    yield opened
    await opened.close()


def keep(connection, *durables):
    for durable in durables:
        connection.change(KEEP, durable=durable, position=1, updated_at=0)


async def test_a_row_has_its_columns_names(database):
    await database.transact(keep, "a", "b")
    row = await database.read(lambda connection: connection.row(FIND, durable="b"))
    assert (row.durable, row.position, row.updated_at) == ("b", 1, 0)


async def test_a_row_that_is_not_there_is_none(database):
    assert await database.read(lambda connection: connection.row(FIND, durable="nobody")) is None
    assert await database.read(lambda connection: connection.rows(FIND, durable="nobody")) == []


async def test_a_change_tells_how_many_rows_it_changed(database):
    await database.transact(keep, "a", "b")
    assert await database.transact(lambda connection: connection.change(MOVE, which="a", to=5)) == 1
    assert await database.transact(lambda connection: connection.change(MOVE, which="a", to=5)) == 0
    moved = await database.read(lambda connection: connection.row(FIND, durable="a"))
    assert (moved.position, moved.updated_at) == (5, 7)
    assert await database.transact(lambda connection: connection.change(FORGET)) == 2


async def test_they_share_the_transaction_with_everything_else(database):
    def fail(connection):
        keep(connection, "a")
        assert connection.scalar(select(CURSORS.durable)) == "a"
        raise LookupError

    with pytest.raises(LookupError):
        await database.transact(fail)
    assert await database.read(lambda connection: connection.row(FIND, durable="a")) is None


async def test_booleans_and_bytes_come_as_what_they_are(database):
    def put(connection):
        row = {"id": "1", "source": "/x", "type": "a.b", "time": 0, "imported": True, "count": 1, "body": b"{}"}
        connection.execute(insert(events).values(row))

    await database.transact(put)
    row = await database.read(lambda connection: connection.row(IMPORTED))
    assert row == (True, b"{}", None)
    assert row.imported is True


async def test_a_parameter_that_is_missing_is_named(database):
    with pytest.raises(KeyError, match="durable"):
        await database.read(lambda connection: connection.row(FIND, id="a"))


async def test_a_broken_constraint_undoes_only_what_broke_it(database):
    await database.transact(keep, "a")
    with pytest.raises(Exception, match=r"(?i)unique"):
        await database.transact(keep, "b", "a")
    await database.transact(keep, "c")
    assert await database.read(lambda connection: connection.row(FIND, durable="b")) is None
    assert await database.read(lambda connection: connection.row(FIND, durable="c")) is not None


async def test_what_is_made_of_a_row_is_the_same_while_the_row_is(database):
    made = Prepared(select(CURSORS.durable, CURSORS.position), make=list, remembered=2)
    await database.transact(keep, "a")
    first, again = [await database.read(lambda connection: connection.row(made)) for _ in range(2)]
    assert first == ["a", 1]
    assert again is first
    await database.transact(lambda connection: connection.change(MOVE, which="a", to=5))
    assert await database.read(lambda connection: connection.row(made)) == ["a", 5]
