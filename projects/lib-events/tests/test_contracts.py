"""A service remembers what its events promised, and does not start with a promise broken."""

import asyncio

import pytest
from pydantic import BaseModel
from sqlalchemy import select, update

from lib_events.contracts.remembered import ContractBroken, keep_contracts
from lib_events.database import open_database
from lib_events.event import Event, EventRegistry, EventType
from lib_events.event_log import SCHEMA
from lib_events.tables import event_contracts, event_log_state


class Order(BaseModel):
    sku: str
    quantity: int = 1


class OrderWithNote(Order):
    note: str | None = None


class OrderByNumber(BaseModel):
    sku: int
    quantity: int = 1


class Explained(Order):
    """An order, explained."""


def placed(model):
    return EventRegistry(EventType("shop.order.placed", model)).schemas()


@pytest.fixture
async def database(database_url):
    opened = await open_database(database_url, service="test-svc", schemas=[SCHEMA])
    yield opened
    await opened.close()


async def store(database):
    """Let there be an event of the type, which may have been read."""
    placed_type = EventType("shop.order.placed", Order)
    await database.write(events=[Event.of(placed_type, Order(sku="a"), source=database.source)])


async def remembered(database):
    query = select(event_contracts.c.type, event_contracts.c.version).order_by(event_contracts.c.version)
    return [tuple(row) for row in await database.read(lambda connection: connection.execute(query).all())]


async def test_the_first_schema_of_a_type_is_version_1_and_stays_it(database):
    for _ in range(2):
        assert await database.transact(keep_contracts, placed(Order)) == {"shop.order.placed": 1}
    assert await remembered(database) == [("shop.order.placed", 1)]


@pytest.mark.parametrize("model", [OrderWithNote, Explained])
async def test_a_compatible_schema_becomes_the_next_version(database, model):
    await database.transact(keep_contracts, placed(Order))
    for _ in range(2):
        assert await database.transact(keep_contracts, placed(model)) == {"shop.order.placed": 2}
    assert await remembered(database) == [("shop.order.placed", 1), ("shop.order.placed", 2)]


async def test_an_incompatible_schema_is_refused_naming_type_versions_field_and_what_to_do(database):
    await database.transact(keep_contracts, placed(Order))
    await store(database)
    both = EventRegistry(EventType("shop.order.sent", Order), EventType("shop.order.placed", OrderByNumber))
    with pytest.raises(
        ContractBroken, match=r"'shop.order.placed' .* version 1 .* version 2 .* data.sku .*; keep .* name"
    ):
        await database.transact(keep_contracts, both.schemas())
    assert await remembered(database) == [("shop.order.placed", 1)]  # the type that was new is not remembered either


async def test_a_type_of_which_there_was_never_an_event_takes_any_shape(database):
    await database.transact(keep_contracts, placed(Order))
    await database.transact(keep_contracts, placed(OrderWithNote))
    assert await database.transact(keep_contracts, placed(OrderByNumber)) == {"shop.order.placed": 1}
    assert await remembered(database) == [("shop.order.placed", 1)]
    await database.transact(lambda connection: connection.execute(update(event_log_state).values(pruned_position=5)))
    with pytest.raises(ContractBroken):  # there may have been one
        await database.transact(keep_contracts, placed(Order))


async def test_the_error_carries_what_a_program_needs(database):
    await database.transact(keep_contracts, placed(Order))
    await store(database)
    with pytest.raises(ContractBroken) as caught:
        await database.transact(keep_contracts, placed(OrderByNumber))
    assert (caught.value.event_type, caught.value.version, caught.value.field) == ("shop.order.placed", 1, "data.sku")


async def test_a_release_that_is_rolled_back_starts_as_the_version_it_was(database):
    await database.transact(keep_contracts, placed(Order))
    await database.transact(keep_contracts, placed(OrderWithNote))
    assert await database.transact(keep_contracts, placed(Order)) == {"shop.order.placed": 1}


async def test_what_was_added_cannot_be_left_out_of_something_new(database):
    await database.transact(keep_contracts, placed(Order))
    await store(database)
    await database.transact(keep_contracts, placed(OrderWithNote))
    with pytest.raises(ContractBroken, match=r"version 2 .* data\.note"):
        await database.transact(keep_contracts, placed(Explained))


async def test_a_type_that_is_no_longer_declared_keeps_its_contract(database):
    await database.transact(keep_contracts, placed(Order))
    await store(database)
    assert await database.transact(keep_contracts, {}) == {}
    with pytest.raises(ContractBroken):
        await database.transact(keep_contracts, placed(OrderByNumber))


@pytest.mark.postgresql
async def test_two_processes_that_start_at_the_same_moment_agree(postgresql_url):
    databases = [await open_database(postgresql_url, service="test-svc", schemas=[SCHEMA]) for _ in range(2)]
    starts = [database.transact(keep_contracts, placed(Order)) for database in databases for _ in range(5)]
    assert await asyncio.gather(*starts) == [{"shop.order.placed": 1}] * 10
    for database in databases:
        await database.close()
