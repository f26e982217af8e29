"""Workflows that events start in batches, and what is needed to publish some and see which runs had them."""

from datetime import timedelta

from pydantic import BaseModel
from sqlalchemy import select

from lib_events.event import Cause, Event, EventType
from lib_workflows import Batch, Context, workflow
from lib_workflows.tables import gathered, runs
from lib_workflows.values.codec import decode_json


class Payment(BaseModel):
    merchant: str | None
    number: int


Paid = EventType("shop.payment.captured", Payment)
SECONDS = timedelta(seconds=5)


@workflow(name="settle", on=Paid, batch=Batch(events=3, timeout=SECONDS))
async def settle(ctx: Context, payments: list[Payment]) -> list[int]:
    return [payment.number for payment in payments]


@workflow(name="settle-by-merchant", on=Paid, batch=Batch(events=3, timeout=SECONDS, key="merchant"))
async def settle_by_merchant(ctx: Context, payments: list[Payment]) -> list[int]:
    return [payment.number for payment in payments]


def paid(number, merchant="a", *, principal=None, correlation=None):
    cause = Cause(correlation_id=correlation, principal=principal)
    return Event.of(Paid, Payment(merchant=merchant, number=number), source="/shop", id=f"paid-{number}", cause=cause)


async def publish(engine, *events):
    await engine.database.transact(lambda connection: connection.publish(*events))


async def inputs(engine, name="settle"):
    """The numbers of the payments with which runs of a workflow were started, run by run."""
    found = select(runs.c.input).where(runs.c.workflow == name).order_by(runs.c.look_back_position)
    texts = await engine.database.read(lambda connection: list(connection.scalars(found)))
    return [[payment["number"] for payment in decode_json(text)] for text in texts]


async def gathering(engine):
    """How many events gather."""
    found = select(gathered.c.run)
    return len(await engine.database.read(lambda connection: list(connection.scalars(found))))
