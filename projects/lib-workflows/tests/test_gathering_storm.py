"""Events that gather while workers die at every commit, side by side, and in whatever portions: each is in one run."""

import asyncio
import random
import tempfile
from datetime import timedelta
from itertools import islice
from types import SimpleNamespace

import pytest
from gathering_flows import Paid, Payment, inputs, paid, publish, settle_by_merchant
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from lib_events.database import open_database
from lib_events.event_log import SCHEMA as EVENTS_SCHEMA
from lib_events.tables import events
from lib_events.testing import wait_until
from lib_workflows import Batch, Context, Engine, workflow
from lib_workflows.authoring.workflow import Registry
from lib_workflows.events import gathering, matching
from lib_workflows.events.matcher import declare_triggers
from lib_workflows.tables import SCHEMA, batches, gathered
from lib_workflows.testing import survive
from lib_workflows.values.codec import encode_json

LEASE_SECONDS = 0.2
SOON = timedelta(seconds=0.15)


@workflow(name="settle-soon", on=Paid, batch=Batch(events=3, timeout=SOON, key="merchant"))
async def settle_soon(ctx: Context, payments: list[Payment]) -> list[int]:
    return [payment.number for payment in payments]


async def publish_once(engine, *new):
    """Publish those that are not in the log yet."""
    found = select(events.c.id).where(events.c.type == Paid.name)
    known = await engine.database.read(lambda connection: set(connection.scalars(found)))
    await publish(engine, *(event for event in new if event.id not in known))


async def all_are_in_runs(engine, count):
    found = await inputs(engine, settle_soon.name)
    return sum(map(len, found)) >= count


def check(found, count, merchants):
    """Each event is in one run, with those of its merchant only, in their order."""
    assert sorted(number for numbers in found for number in numbers) == list(range(count))
    for numbers in found:
        assert len(numbers) <= 3
        assert len({number % merchants for number in numbers}) == 1
        assert numbers == sorted(numbers)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("after", [False, True], ids=["before the commit", "after the commit"])
async def test_a_crash_at_every_commit_leaves_each_event_in_one_run(database_url, after):
    number, crashed, count = 0, True, 0

    async def scenario(engine):
        """A full batch and two that time starts, in three portions."""
        first = 5 * (number - 1)
        for portion in ((0, 1, 2), (3,), (4,)):
            await publish_once(engine, *(paid(first + each, "ab"[(first + each) % 2]) for each in portion))
        await wait_until(lambda: all_are_in_runs(engine, first + 5))
        return await inputs(engine, settle_soon.name)

    while crashed:
        number, count = number + 1, count + 5
        found, crashed = await survive(
            database_url, [settle_soon], scenario, crash_at=number, after=after, lease_seconds=LEASE_SECONDS
        )
        check(found, count, merchants=2)
    assert number > 5


@pytest.mark.postgresql
async def test_events_that_come_while_workers_come_and_go_are_each_in_one_run(postgresql_url):
    chance, numbers, merchants = random.Random(4), iter(range(300)), 7

    async def pay(engine):
        while portion := list(islice(numbers, chance.randint(1, 9))):
            await publish(engine, *(paid(number, f"m{number % merchants}") for number in portion))
            for _ in range(chance.randint(0, 20)):
                await asyncio.sleep(0)

    first, second = (Engine.open(postgresql_url, [settle_soon], lease_seconds=1.0) for _ in range(2))
    async with first as dies, second as engine:
        paying = asyncio.create_task(pay(engine))
        await wait_until(lambda: all_are_in_runs(engine, 60))
        await dies.abandon()
        async with Engine.open(postgresql_url, [settle_soon], lease_seconds=1.0):
            await paying
            await wait_until(lambda: all_are_in_runs(engine, 300))
            check(await inputs(engine, settle_soon.name), 300, merchants)


PORTIONS = st.lists(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40)), max_size=8), max_size=8)


@settings(max_examples=25, deadline=None)
@given(portions=PORTIONS)
def test_a_batch_is_the_next_events_of_its_key_as_many_as_fit(portions):
    """Whatever portions they come in, and whatever is due meanwhile."""
    asyncio.run(check_portions(portions))


async def check_portions(portions):
    limit, placed, position = 150, [], 0
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(gathering, "LIMIT_BYTES", limit)
        database = await open_database(f"sqlite:///{folder}/storm.db", service="storm", schemas=[EVENTS_SCHEMA, SCHEMA])
        try:
            await database.transact(lambda c: declare_triggers(c, Registry.of([settle_by_merchant]).newest()))
            for now, portion in enumerate(portions):
                new = []
                for merchant, width in portion:
                    position += 1
                    new.append((position, paid(10**width + position, merchant)))
                placed += new
                await database.transact(match, new, now)
            await database.transact(gathering.start_due, 10**9)
            assert await database.read(lambda c: [*c.execute(select(batches)), *c.execute(select(gathered))]) == []

            found = await inputs(SimpleNamespace(database=database), settle_by_merchant.name)
        finally:
            await database.close()
    assert sorted(map(tuple, found)) == sorted(map(tuple, expected(placed, limit)))


def match(connection, placed, now):
    gathering.gather(connection, placed, matching.wanted(connection).gathering, now)
    gathering.start_due(connection, now)


def expected(placed, limit):
    """The batches, made the simple way."""
    done, gathers = [], {}
    for _, event in placed:
        key = event.data["merchant"]
        batch = [*gathers.get(key, []), event.data]
        if len(batch) > 1 and len(encode_json(batch).encode()) > limit:
            done.append(gathers[key])
            batch = [event.data]
        gathers[key] = batch
        if len(batch) == 3:
            done.append(gathers.pop(key))
    return [[each["number"] for each in batch] for batch in [*done, *gathers.values()]]
