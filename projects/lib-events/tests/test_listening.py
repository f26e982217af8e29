"""Notifications of PostgreSQL: whoever has opened a database hears what others commit, also after its line was cut."""

import asyncio
import contextlib
import socket
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl, urlsplit

import pytest

from lib_events.adapters.postgresql import PostgresqlDatabase
from lib_events.database import open_database
from lib_events.event_log import SCHEMA
from lib_events.testing import wait_until

pytestmark = pytest.mark.postgresql


@asynccontextmanager
async def opened(url):
    database = await open_database(url, service="test-svc", schemas=[SCHEMA])
    try:
        yield database
    finally:
        await database.close()


def tell(connection):
    connection.notify("runs")


async def test_nothing_that_comes_once_a_database_is_open_goes_unheard(postgresql_url, monkeypatch):
    connect = PostgresqlDatabase.connect

    async def connect_slowly(database):
        await asyncio.sleep(0.1)
        return await connect(database)

    async with opened(postgresql_url) as other:
        await other.transact(tell)  # its own lines are there
        monkeypatch.setattr(PostgresqlDatabase, "connect", connect_slowly)
        async with opened(postgresql_url) as database:
            heard = asyncio.Event()
            database.on_notify("runs", heard.set)
            await other.transact(tell)
            await asyncio.wait_for(heard.wait(), 5)


async def test_whoever_could_not_hear_for_a_while_looks_and_is_heard_again(postgresql_url):
    async with opened(postgresql_url) as other, opened(postgresql_url) as database:
        heard, heard_elsewhere = asyncio.Event(), asyncio.Event()
        other.on_notify("runs", heard_elsewhere.set)
        await wait_until(lambda: database._listener is not None)
        before = database._listener
        pid = before.get_server_pid()
        await other.transact(lambda connection: connection._core.exec_driver_sql(f"SELECT pg_terminate_backend({pid})"))
        await wait_until(before.is_closed)
        database.on_notify("runs", heard.set)
        await other.transact(tell)  # while nobody listens here
        heard_elsewhere.clear()
        await database.transact(tell)
        heard.clear()
        await asyncio.wait_for(heard.wait(), 10)
        await asyncio.wait_for(heard_elsewhere.wait(), 10)


async def test_a_line_is_made_again_although_the_driver_does_not_tell_that_it_is_cut(postgresql_url):
    """It does not, where a question is just being asked as the end comes: nothing was heard again until a restart."""
    async with opened(postgresql_url) as other, opened(postgresql_url) as database:
        before = database._listener
        before._termination_listeners.clear()
        before.terminate()
        await wait_until(before.is_closed)
        await wait_until(lambda: database._listener is not before)
        heard = asyncio.Event()
        database.on_notify("runs", heard.set)
        await other.transact(tell)
        await asyncio.wait_for(heard.wait(), 10)


async def test_a_server_whose_machine_is_gone_is_noticed(postgresql_url, free_port):
    """It says nothing any more, not even that it is gone: TCP by itself waits a quarter of an hour."""
    options = dict(parse_qsl(urlsplit(postgresql_url).query))
    if "host" not in options:
        pytest.skip("needs a server behind a file, to have a line to it made here")

    async def forward(reader, writer):
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
        writer.close()

    async def accept(reader, writer):
        back, there = await asyncio.open_unix_connection(f"{options['host']}/.s.PGSQL.5432")
        await asyncio.gather(forward(reader, there), forward(back, writer))

    async with await asyncio.start_server(accept, "127.0.0.1", free_port):
        url = f"postgresql://postgres:@127.0.0.1:{free_port}/postgres?schema={options['schema']}"
        async with opened(url) as database:
            connection, _ = await database._hot_connection()
            line = connection._transport.get_extra_info("socket")
            assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 30
            assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 30_000
