"""What a type of PostgreSQL is, a process asks once; what people have made, each connection."""

import pytest
import pytest_asyncio

from lib_events.database import open_database
from lib_events.event_log import SCHEMA

pytestmark = pytest.mark.postgresql
ASKED = "typeinfo_tree"  # the driver's question


@pytest_asyncio.fixture
async def connect(postgresql_url):
    """Opens connections as the database does."""
    database = await open_database(postgresql_url, service="test-svc", schemas=[SCHEMA])
    opened = []

    async def connect():
        opened.append(await database.connect())
        return opened[-1]

    yield connect
    for connection in opened:
        await connection.close()
    await database.close()


async def asked(connection, query, value):
    """Whether the driver had to ask what a type is, and what came back."""
    questions = []
    with connection.query_logger(lambda record: questions.append(record.query)):
        found = await connection.fetchval(query, value)
    return any(ASKED in question for question in questions), found


async def test_what_an_array_is_one_connection_asks_for_all(connect):
    query, values = "SELECT $1::bigint[]", [1, 2]
    await asked(await connect(), query, values)
    assert await asked(await connect(), query, values) == (False, values)
    assert await asked(await connect(), "SELECT $1::bigint[] || 3", values) == (False, [1, 2, 3])


async def test_a_type_that_somebody_made_is_asked_for_each_time(connect):
    first = await connect()
    await first.execute("CREATE TYPE mood AS ENUM ('calm', 'merry')")
    query, values = "SELECT $1::mood[]", ["merry"]
    assert await asked(first, query, values) == (True, values)
    assert await asked(await connect(), query, values) == (True, values)
