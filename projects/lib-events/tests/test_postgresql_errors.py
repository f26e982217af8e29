"""What PostgreSQL says when it can do nothing for anybody: no function, no handler and no run is at fault."""

import asyncio
import uuid
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
import pytest_asyncio
from pydantic import BaseModel
from sqlalchemy import func, insert, select, text

from lib_events.database import CommitFailed, DatabaseUnavailable, is_database_failure, open_database
from lib_events.event import Event, EventType
from lib_events.event_log import SCHEMA
from lib_events.handling.subscriptions import Subscriptions
from lib_events.lifecycle import running
from lib_events.nats.relay import Relay
from lib_events.statement import Statement, Write
from lib_events.subscription import subscribe
from lib_events.tables import dead_letters, subscription_cursors
from lib_events.testing import wait_until

pytestmark = pytest.mark.postgresql


class Note(BaseModel):
    number: int


Noted = EventType("test.noted", Note)


def note(connection, number):
    connection.execute(insert(subscription_cursors).values(durable=f"d{number}", position=number, updated_at=0))
    return number


def count(connection, table=subscription_cursors):
    return connection.scalar(select(func.count()).select_from(table))


@pytest_asyncio.fixture
async def role(postgresql_server):
    """A role with a schema of its own, and a connection of somebody who may change it."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    administrator = await asyncpg.connect(postgresql_server)
    await administrator.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x'; CREATE SCHEMA {name} AUTHORIZATION {name}")
    yield name, administrator
    await administrator.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")
    await administrator.close()


async def test_a_server_that_has_no_room_for_a_connection_is_nobodys_error_but_the_databases(postgresql_server, role):
    name, administrator = role
    parts = urlsplit(postgresql_server)
    host = parts.netloc.rpartition("@")[2]
    url = urlunsplit(parts._replace(netloc=f"{name}:x@{host}", query=f"{parts.query}&schema={name}".lstrip("&")))
    database = await open_database(url, service="test-svc", schemas=[SCHEMA])
    try:
        await database._pool.close()
        await administrator.execute(f"ALTER ROLE {name} CONNECTION LIMIT 0")
        events_of = [Event.of(Noted, Note(number=number), source="/test-svc") for number in range(2)]
        asked = [
            *(database.write(events=[event]) for event in events_of),
            *(ask(count) for ask in (database.transact, database.read, database.look)),
        ]
        for refused in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(refused, DatabaseUnavailable | CommitFailed)
            assert "too many connections" in str(refused)
        await administrator.execute(f"ALTER ROLE {name} CONNECTION LIMIT -1")
        assert await database.transact(note, 1) == 1
    finally:
        await database.close()


def refuse(code, *tables):
    """What makes the server say so of each row that is inserted."""
    function = f"BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = '{code}'; END"
    made = f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $${function}$$;"
    return made + "".join(
        f"CREATE TRIGGER refuse BEFORE INSERT ON {table} EXECUTE FUNCTION refuse();" for table in tables
    )


def go_on(connection):
    connection.execute(text("DROP FUNCTION refuse CASCADE"))


CANNOT = {
    "53100": "full",
    "53200": "without memory",
    "53400": "at a limit",
    "58030": "broken",
    "58P01": "without a file",
    "XX001": "damaged",
    "57014": "cancelled",
    "55P03": "locked",
    "40P01": "busy",
}


@pytest.mark.parametrize("code", ["25006", *CANNOT], ids=["read-only", *CANNOT.values()])
async def test_a_server_that_cannot_save_is_nobodys_error_but_the_databases(postgresql_url, code):
    database = await open_database(postgresql_url, service="test-svc", schemas=[SCHEMA])
    try:
        async with database._pool.lend() as borrowed:
            await borrowed.raw.execute(refuse(code, "subscription_cursors", "events"))
        written = database.write(events=[Event.of(Noted, Note(number=0), source="/test-svc")])
        for refused in (written, database.transact(note, 1)):
            with pytest.raises(CommitFailed, match="nothing was saved") as raised:
                await refused
            assert is_database_failure(raised.value)
        await database.transact(go_on)
        assert await database.transact(note, 1) == 1
    finally:
        await database.close()


@pytest.mark.parametrize("code", CANNOT, ids=CANNOT.values())
async def test_a_server_that_cannot_read_is_nobodys_error_but_the_databases(postgresql_url, code):
    def ask(connection):
        return connection.scalar(text("SELECT refuse()"))

    body = f"BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = '{code}'; END"
    database = await open_database(postgresql_url, service="test-svc", schemas=[SCHEMA])
    try:
        async with database._pool.lend() as borrowed:
            await borrowed.raw.execute(f"CREATE FUNCTION refuse() RETURNS int LANGUAGE plpgsql AS $${body}$$")
        for look in (database.read, database.look):
            with pytest.raises(DatabaseUnavailable, match="cannot read: not now; try again"):
                await look(ask)
    finally:
        await database.close()


async def test_no_event_is_put_aside_because_a_disk_is_full(postgresql_url):
    @subscribe(Noted, durable="notes", attempts=1)
    def handle(connection, event):
        note(connection, event.data["number"])

    def is_handled(connection):
        return connection.scalar(select(subscription_cursors.c.position).where(subscription_cursors.c.durable == "d1"))

    database = await open_database(postgresql_url, service="test-svc", schemas=[SCHEMA])
    subscriptions = Subscriptions(database, [handle])
    try:
        async with running(Relay(database, None), subscriptions):
            await wait_until(lambda: database.read(count))  # it has its place
            async with database._pool.lend() as borrowed:
                await borrowed.raw.execute(refuse("53100", "subscription_cursors"))
            await database.write(events=[Event.of(Noted, Note(number=1), source="/test-svc")])
            (consumer,) = subscriptions._consumers.values()
            await wait_until(lambda: consumer.error)
            assert await database.read(count, dead_letters) == 0
            await database.transact(go_on)
            await wait_until(lambda: database.read(is_handled))
    finally:
        await database.close()


def move(name, durable):
    """A hot statement that moves one place; of a group the one that is named last runs first."""
    update = "UPDATE subscription_cursors SET position = rows.position FROM {rows}"
    return Statement(name, "", f"{update} WHERE durable = '{durable}'", (("position", "bigint"),))


async def test_a_commit_that_was_chosen_to_end_a_deadlock_is_made_once_more(postgresql_url):
    database = await open_database(postgresql_url, service="test-svc", schemas=[SCHEMA])
    lock = "UPDATE subscription_cursors SET updated_at = 1 WHERE durable = $1"
    try:
        for number in (1, 2):
            await database.transact(note, number)
        async with database._pool.lend() as borrowed, borrowed.raw.transaction():
            await borrowed.raw.execute(lock, "d2")
            moved = database.write(Write(move("b", "d1"), (7,)), Write(move("a", "d2"), (7,)))
            blocked = (
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
            )
            await wait_until(lambda: borrowed.raw.fetchval(blocked))
            await borrowed.raw.execute(lock, "d1")  # each waits for the other now, and the commit has waited longer
        await moved
    finally:
        await database.close()
