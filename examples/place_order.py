"""State and its event in one transaction, with the ground alone: `python place_order.py sqlite:///shop.db`."""

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Column, Integer, MetaData, Table, Text, insert, select
from sqlalchemy.schema import CreateTable

from lib_events.database import Connection, Database, open_database
from lib_events.event import Event, EventType
from lib_events.event_log import SCHEMA
from lib_events.tables import events

orders = Table("orders", MetaData(), Column("id", Text, primary_key=True), Column("quantity", Integer, nullable=False))


# --8<-- [start:placed]
class Order(BaseModel):
    """What somebody ordered."""

    id: str
    quantity: int


OrderPlaced = EventType("shop.order.placed", Order)


def place_order(connection: Connection, order: Order) -> None:
    """Keep an order and tell of it: both, or neither."""
    connection.execute(insert(orders).values(id=order.id, quantity=order.quantity))
    connection.publish(Event.of(OrderPlaced, order, source=connection.source, subject=order.id))


async def place(database: Database, order: Order) -> None:
    """Durable when it returns."""
    await database.transact(place_order, order)


# --8<-- [end:placed]


def told(connection: Connection) -> Sequence[Any]:
    """What the log holds."""
    return connection.execute(select(events.c.type, events.c.subject)).all()


async def main(url: str) -> None:
    """Place an order, and show what the log holds."""
    database = await open_database(url, service="shop", schemas=[SCHEMA])
    try:
        await database.transact(lambda connection: connection.execute(CreateTable(orders, if_not_exists=True)))
        await place(database, Order(id="42", quantity=3))
        for kept in await database.read(told):
            print(*kept)
    finally:
        await database.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
