"""Leading on PostgreSQL: one process at a time, and another one when it goes, however it goes."""

import asyncio

import pytest
import pytest_asyncio

from lib_events.database import open_database
from lib_events.event_log import SCHEMA
from lib_events.testing import wait_until

pytestmark = pytest.mark.postgresql


@pytest_asyncio.fixture
async def processes(postgresql_url):
    opened = [await open_database(postgresql_url, service="app-svc", schemas=[SCHEMA]) for _ in range(2)]
    yield opened
    for database in opened:
        await database.close()


async def lead(database, role, log, name, until):
    async with database.leading(role) as lost:
        log.append(name)
        waits = [asyncio.create_task(until.wait()), asyncio.create_task(lost.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()


async def test_one_process_leads_and_the_other_follows_it(processes):
    first, second = processes
    log, done, never = [], asyncio.Event(), asyncio.Event()
    leading = asyncio.create_task(lead(first, "relay", log, "first", done))
    await wait_until(lambda: log == ["first"])
    waiting = asyncio.create_task(lead(second, "relay", log, "second", never))
    await asyncio.create_task(lead(second, "importer", log, "another role", done_at_once()))
    assert log == ["first", "another role"]
    done.set()
    await leading
    await wait_until(lambda: log[-1] == "second")
    waiting.cancel()


def done_at_once():
    done = asyncio.Event()
    done.set()
    return done


async def test_within_a_process_one_leads_at_a_time(processes):
    first, _ = processes
    log, done = [], asyncio.Event()
    tasks = [asyncio.create_task(lead(first, "relay", log, name, done)) for name in ("one", "two")]
    await wait_until(lambda: log == ["one"])
    done.set()
    await asyncio.gather(*tasks)
    assert log == ["one", "two"]


async def test_who_stops_waiting_leaves_no_lead_behind(processes):
    first, second = processes
    log, done = [], asyncio.Event()
    leading = asyncio.create_task(lead(first, "relay", log, "first", done))
    await wait_until(lambda: log)
    waiting = asyncio.create_task(lead(second, "relay", log, "second", done))
    await wait_until(lambda: second._leads._waiting)
    waiting.cancel()
    await asyncio.wait([waiting])
    done.set()
    await leading
    await asyncio.wait_for(lead(first, "relay", log, "again", done), 5)
    assert log == ["first", "again"]


async def test_a_lost_connection_ends_every_lead_and_another_process_takes_over(processes):
    first, second = processes
    log, never = [], asyncio.Event()
    leading = [asyncio.create_task(lead(first, role, log, f"first {role}", never)) for role in ("a", "b")]
    await wait_until(lambda: len(log) == 2)
    following = [asyncio.create_task(lead(second, role, log, f"second {role}", never)) for role in ("a", "b")]
    await wait_until(lambda: second._leads._waiting)
    first._leads._connection.terminate()
    await asyncio.gather(*leading)
    await wait_until(lambda: set(log[2:]) == {"second a", "second b"})
    for task in following:
        task.cancel()
