"""Proofs as rows: taken once by all processes of a service, and gone when they could not come again."""

import asyncio
import time

import pytest
from sqlalchemy import func, select

from lib_auth import tables
from lib_auth.dpop import KEPT_SECONDS
from lib_auth.used_proofs import BATCH, ProofPruner, UsedProofs
from lib_events import event_log
from lib_events.database import open_database
from lib_events.lifecycle import running
from lib_events.testing import wait_until

SCHEMAS = [event_log.SCHEMA, tables.SCHEMA]


@pytest.fixture
async def database(database_url):
    opened = await open_database(database_url, service="app-svc", schemas=SCHEMAS)
    yield opened
    await opened.close()


def digest(number):
    return number.to_bytes(32)


async def kept(database):
    return await database.read(
        lambda connection: connection.scalar(select(func.count()).select_from(tables.used_proofs))
    )


async def test_of_twenty_at_once_one_takes_a_proof(database):
    memory = UsedProofs(database)
    assert sorted(await asyncio.gather(*(memory.take(digest(1), 100.0) for _ in range(20)))) == [False] * 19 + [True]
    assert await memory.take(digest(2), 100.0)


async def test_another_process_and_one_after_a_restart_know_what_was_taken(postgresql_url):
    one = await open_database(postgresql_url, service="app-svc", schemas=SCHEMAS)
    two = await open_database(postgresql_url, service="app-svc", schemas=SCHEMAS)
    try:
        assert await UsedProofs(one).take(digest(1), 100.0)
        assert not await UsedProofs(two).take(digest(1), 100.0)
        assert not await UsedProofs(one).take(digest(1), 100.0), "nothing is remembered but in rows"
    finally:
        await one.close()
        await two.close()


async def test_what_could_not_come_again_goes(database):
    memory, now = UsedProofs(database), time.time()
    for number in range(BATCH + 5):
        await memory.take(digest(number), now)
    await memory.take(digest(9_999), now + 60)

    async def one_is_left():
        return await kept(database) == 1

    async with running(ProofPruner(database, clock=lambda: now + KEPT_SECONDS + 1)):
        await wait_until(one_is_left)
    assert not await memory.take(digest(9_999), now)
    async with running(pruner := ProofPruner(database, clock=lambda: now)):
        await wait_until(lambda: pruner.is_pausing)
    assert await kept(database) == 1
