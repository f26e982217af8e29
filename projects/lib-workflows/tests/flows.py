"""The workflows the engine's tests run; one of them does everything a workflow can do."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel

from lib_events.database import Connection
from lib_workflows import Context, EventType, Signal, Update, step, workflow
from lib_workflows.authoring.retry import Backoff

FAST = Backoff(initial=timedelta(milliseconds=1), maximum=timedelta(milliseconds=2))


class Order(BaseModel):
    id: str
    amount: int


@dataclass
class Receipt:
    order: str
    paid: int


class CardDeclined(Exception):
    def __init__(self, code: str, limit: int) -> None:
        super().__init__(f"declined: {code}")
        self.code = code
        self.limit = limit


OrderPlaced = EventType("shop.order.placed", Order)
PaymentCaptured = EventType("payment.captured", Order)
OrderShipped = EventType("shop.order.shipped", Order)
address_changed = Signal("address-changed", str)
change_quantity = Update("change-quantity", int, int)

calls: list[tuple[Any, ...]] = []  # what steps did, in this process


@step
async def double(number: int) -> int:
    calls.append(("double", number))
    return number * 2


@step
def in_a_thread(number: int) -> int:
    calls.append(("in_a_thread", number))
    return number + 1


@step(errors=(CardDeclined,))
async def charge(order: Order) -> Receipt:
    if order.amount > 100:
        raise CardDeclined("limit", 100)
    return Receipt(order.id, order.amount)


async def refund(receipt: Receipt | None, order: Order) -> None:
    calls.append(("refund", receipt, order.id))


def _change(connection: Connection, run: str, change: int) -> None:
    statement = sa.text("INSERT INTO stock (run, change) VALUES (:run, :change)")
    connection.execute(statement, {"run": run, "change": change})


def reserve(connection: Connection, run: str, amount: int) -> int:
    connection.execute(
        sa.text("INSERT INTO stock (run, change) VALUES (:run, :change)"), {"run": run, "change": -amount}
    )
    return amount


def release(connection: Connection, held: int | None, run: str, amount: int) -> None:
    assert held == amount
    connection.execute(
        sa.text("INSERT INTO stock (run, change) VALUES (:run, :change)"), {"run": run, "change": amount}
    )


def make_stock(connection: Connection) -> None:
    connection.execute(sa.text("CREATE TABLE IF NOT EXISTS stock (run TEXT, change INTEGER)"))


def stock_of(connection: Connection, run: str) -> list[int]:
    return list(connection.scalars(sa.text("SELECT change FROM stock WHERE run = :run"), {"run": run}))


@workflow(name="doubling")
async def doubling(ctx: Context, number: int) -> int:
    """Double a number."""
    return await ctx.step(double, number)


@workflow(name="everything", type="test")
async def everything(ctx: Context, order: Order) -> dict[str, Any]:
    """Use every operation once."""
    receipt = await ctx.step(charge, order, undo=refund)
    held = await ctx.transaction(reserve, ctx.run_id, order.amount, undo=release)
    await ctx.sleep(0.002)
    threaded = await ctx.step(in_a_thread, held)
    answer = await ctx.approval("ship", text="Ship it?", to="role:manager", about={"order": order.id})
    address = await ctx.wait_signal(address_changed)
    children = await ctx.gather(*(ctx.child(doubling, n) for n in range(3)), limit=2)
    index, first = await ctx.race(ctx.sleep(60), ctx.step(double, 21))
    await ctx.publish(OrderShipped, order, subject=order.id)
    await ctx.set_view("status", {"address": address})
    if not answer.approved:
        raise CardDeclined("not approved", 0)
    return {
        "receipt": receipt.paid,
        "held": held,
        "threaded": threaded,
        "address": address,
        "children": children,
        "race": [index, first],
        "uuid": str(ctx.uuid()),
    }


@workflow(name="on-order", on=OrderPlaced)
async def on_order(ctx: Context, order: Order) -> str:
    """Start on an event and wait for another that belongs to it."""
    paid = await ctx.wait_event(PaymentCaptured, match={"id": order.id}, timeout=timedelta(hours=1))
    return f"{order.id} paid {paid.amount}"


@workflow(name="forever")
async def forever(ctx: Context) -> str:
    """Wait for a signal, holding something that must be undone."""
    await ctx.step(charge, Order(id=ctx.run_id, amount=1), undo=refund)
    await ctx.transaction(reserve, ctx.run_id, 1, undo=release)
    return await ctx.wait_signal(address_changed)
