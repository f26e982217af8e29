"""Leading on PostgreSQL: one process at a time, and another one when it goes, however it goes."""

import asyncio
import threading
from contextlib import suppress

import asyncpg
import pytest
import pytest_asyncio

from lib_events.adapters import postgresql_leads
from lib_events.database import LeadLost, open_database
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
    with suppress(LeadLost):
        async with database.leading(role):
            log.append(name)
            await until.wait()


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


async def test_two_roles_do_not_wait_for_each_other_because_their_names_look_alike(processes):
    """Their checksums of 32 bits are the same."""
    first, _ = processes
    async with asyncio.timeout(20), first.leading("plumless"), first.leading("buckeroo"):
        pass


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


async def test_whoever_leads_no_more_is_stopped_where_it_stands_and_told_why(processes):
    (first, _), stood = processes, []

    async def stand():
        async with first.leading("relay"):
            first._leads._connection.terminate()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                stood.append("here")
                raise

    with pytest.raises(LeadLost):
        await stand()
    assert (stood, asyncio.current_task().cancelling()) == (["here"], 0)


async def test_what_fails_while_leading_is_not_taken_for_a_lost_lead(processes):
    async def fail():
        async with processes[0].leading("relay"):
            raise TimeoutError("of its own")

    with pytest.raises(TimeoutError, match="of its own"):
        await fail()


async def test_a_lead_is_lost_although_the_driver_does_not_tell_that_its_connection_is(processes, monkeypatch):
    monkeypatch.setattr(postgresql_leads, "BEAT_SECONDS", 0.1)
    log, never = [], asyncio.Event()
    leading = asyncio.create_task(lead(processes[0], "relay", log, "first", never))
    await wait_until(lambda: log)
    connection = processes[0]._leads._connection
    connection._termination_listeners.clear()
    connection.terminate()
    await asyncio.wait_for(leading, 10)


async def test_a_leader_whose_loop_is_blocked_is_replaced(postgresql_url, processes, monkeypatch):
    """It does nothing that it leads in, and its connection lives: others waited until somebody ended it."""
    monkeypatch.setattr(postgresql_leads, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(postgresql_leads, "SILENT_SECONDS", 1.0)
    _, second = processes
    leads, go_on = threading.Event(), threading.Event()
    log, never = [], asyncio.Event()

    async def lead_and_block():
        database = await open_database(postgresql_url, service="app-svc", schemas=[SCHEMA])
        try:
            async with database.leading("relay"):
                await asyncio.sleep(2)  # longer than it may be silent: it says that it is there
                leads.set()
                go_on.wait(30)
                await asyncio.sleep(5)
        finally:
            await database.close()

    async def lead_until_lost():
        with pytest.raises(LeadLost):
            await lead_and_block()

    blocked = asyncio.ensure_future(asyncio.to_thread(asyncio.run, lead_until_lost()))
    await wait_until(leads.is_set)
    following = asyncio.create_task(lead(second, "relay", log, "second", never))
    try:
        await wait_until(lambda: log == ["second"], timeout=15)
    finally:
        go_on.set()
    await blocked
    following.cancel()


async def test_a_leader_whose_machine_is_gone_without_a_word_is_noticed(processes):
    """Its connection is never closed: TCP by itself would let it lead for two hours."""
    first, _ = processes
    connection = await first.connect()
    try:
        told = "SELECT name FROM pg_settings WHERE name LIKE 'tcp_keepalives_%' AND source = 'client' ORDER BY name"
        found = [row["name"] for row in await connection.fetch(told)]
        assert found == ["tcp_keepalives_count", "tcp_keepalives_idle", "tcp_keepalives_interval"]
    finally:
        await connection.close()


async def test_a_statement_that_waits_is_given_up_with_its_client(processes):
    """It would come true long after its sender has heard that its connection was lost, and has begun anew."""
    first, second = processes
    holder, gone, looker = await first.connect(), await second.connect(), await first.connect()
    try:
        async with holder.transaction():
            await holder.execute("LOCK TABLE events IN EXCLUSIVE MODE")
            pid = gone.get_server_pid()
            waiting = asyncio.ensure_future(gone.execute("DELETE FROM events"))
            here = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'"

            async def waits():
                return await looker.fetchval(here, pid)

            async def has_gone():
                return not await looker.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = $1", pid)

            await wait_until(waits)
            gone.terminate()
            await wait_until(has_gone)
            with pytest.raises(asyncpg.PostgresConnectionError):
                await waiting
    finally:
        await holder.close()
        await looker.close()
