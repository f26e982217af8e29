"""What an engine asks of its database while nothing happens: a handful of statements, however many runs wait."""

import asyncio

import pytest
from flows import address_changed, forever, make_stock

from lib_events.adapters import sqlite
from lib_events.adapters.postgresql import PostgresqlDatabase
from lib_events.testing import wait_until
from lib_workflows import Engine
from lib_workflows.reading import queries
from lib_workflows.workers.limits import Limits

WINDOW_SECONDS = 3.0
STATEMENTS = 45  # of all loops and connections together, in the window; a slow poll may fall into it
WAITING = 200


@pytest.fixture
def statements(monkeypatch):
    """Every statement on connections that are made from now on."""
    found = []
    connect_to_sqlite, connect_to_postgresql = sqlite._connect, PostgresqlDatabase.connect

    def counting_sqlite(*args, **options):
        raw = connect_to_sqlite(*args, **options)
        raw.set_trace_callback(found.append)
        return raw

    async def counting_postgresql(database):
        raw = await connect_to_postgresql(database)
        raw.add_query_logger(lambda record: found.append(record.query))
        return raw

    monkeypatch.setattr(sqlite, "_connect", counting_sqlite)
    monkeypatch.setattr(PostgresqlDatabase, "connect", counting_postgresql)
    return found


@pytest.mark.parametrize("idle_seconds", [60.0, 0.0], ids=["in memory", "out of memory"])
async def test_an_idle_engine_asks_its_database_little(database_url, statements, idle_seconds):
    limits = Limits(idle_seconds=idle_seconds)
    async with Engine.open(database_url, [forever], limits=limits) as engine:
        await engine.database.transact(make_stock)
        handles = [await engine.start(forever, id=f"waits-{number}") for number in range(WAITING)]
        await wait_until(lambda: all_wait(engine))
        if idle_seconds == 0:
            await wait_until(lambda: all_left(engine))
        asking = [asyncio.ensure_future(handle.result()) for handle in handles[:20]]
        await asyncio.gather(*(handle.status() for handle in handles[:20]))
        statements.clear()
        most = STATEMENTS + asks_for_results(idle_seconds)
        with pytest.raises(TimeoutError):
            await wait_until(lambda: len(statements) > most, timeout=WINDOW_SECONDS)
        for handle, result in zip(handles, asking, strict=False):
            await handle.signal(address_changed, "here")
            assert await asyncio.wait_for(result, 10) == "here"


def asks_for_results(idle_seconds):
    """Who waits for a run that is in nobody's memory looks once a second: BEGIN, SELECT, ROLLBACK."""
    return 0 if idle_seconds else round(20 * 3 * (WINDOW_SECONDS + 1))


async def all_wait(engine):
    return await engine.database.read(queries.count_runs) == {"waiting": WAITING}


def all_left(engine):
    engine.residence.evict_idle()
    return not engine.residence.executors
