"""Orchestrated saga: reserve stock, take payment, ship; a failure or a cancel undoes what was done.

Stock, payments and shipments are tables of this service, so each part is a transaction function: its rows, its
event and its place in the run's history are one commit, and a crash can neither lose nor double any of them.
"""

import hashlib
import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Table, insert, select, update

from app_svc.tables import payments, shipments, stock, stock_reservations
from lib_events.clock import SystemClock
from lib_events.database import Connection
from lib_events.event import Cause, Event
from lib_workflows import Context, EventType, current_step, step, workflow

logger = logging.getLogger(__name__)

CARD_LIMIT_CENTS = 1_000_00

# The payment provider has the card and gives a token for it; who has only the token can charge nobody. These are the
# test tokens of a provider that takes no money.
type CardToken = Literal["tok_visa", "tok_mastercard", "tok_declined"]


class OrderInput(BaseModel):
    """What is ordered, how it is paid, and where it goes."""

    model_config = ConfigDict(extra="forbid")

    sku: str = Field(
        default="mug-blue",
        max_length=64,
        description="The article",
        examples=["mug-blue", "mug-white", "tea-green", "kettle", "lamp"],
    )
    quantity: int = Field(default=1, ge=1, le=1_000)
    card: CardToken = Field(
        default="tok_visa", description="The payment provider's token for a card; nothing is charged"
    )
    address: str = Field(default="1 Main Street, Springfield", min_length=1, max_length=200)
    hold_seconds: float = Field(default=0, ge=0, le=86_400, description="Pause, so that there is time to cancel")
    hold_after: Literal["stock", "payment", "shipment"] = Field(default="payment", description="Where to pause")


class OutOfStock(Exception):
    """There is not enough of an article."""

    def __init__(self, sku: str, wanted: int, available: int) -> None:
        super().__init__(sku, wanted, available)
        self.sku = sku
        self.wanted = wanted
        self.available = available

    def __str__(self) -> str:
        return f"quantity of {self.sku!r} must be at most {self.available}, got {self.wanted}; order less"


class UnknownArticle(Exception):
    """There is no such article."""

    def __init__(self, sku: str, known: list[str]) -> None:
        super().__init__(sku, known)
        self.sku = sku
        self.known = known

    def __str__(self) -> str:
        return f"sku must be one of {', '.join(self.known)}, got {self.sku!r}; choose one of them"


class CardDeclined(Exception):
    """The card cannot pay this."""

    def __init__(self, card: CardToken, why: str) -> None:
        super().__init__(card, why)
        self.card = card
        self.why = why

    def __str__(self) -> str:
        return f"card {self.card} was declined: {self.why}; use another card"


@dataclass(frozen=True, slots=True)
class Purchase:
    """Whose order this is, and why: carried in every event of it."""

    order: str
    cause: Cause


@dataclass(frozen=True, slots=True)
class Reservation:
    """Goods that are kept for an order."""

    order: str
    sku: str
    quantity: int
    total_cents: int


@dataclass(frozen=True, slots=True)
class Payment:
    """Money that was taken for an order."""

    order: str
    amount_cents: int
    card: CardToken


@dataclass(frozen=True, slots=True)
class Shipment:
    """Goods on their way."""

    order: str
    tracking_number: str
    address: str


@dataclass(frozen=True, slots=True)
class OrderResult:
    """An order that went through."""

    order: str
    sku: str
    quantity: int
    paid_cents: int
    card: CardToken
    tracking_number: str


StockReserved = EventType("order.stock.reserved", Reservation)
StockReleased = EventType("order.stock.released", Reservation)
PaymentCaptured = EventType("order.payment.captured", Payment)
PaymentRefunded = EventType("order.payment.refunded", Payment)
OrderShipped = EventType("order.shipment.sent", Shipment)
ShipmentRecalled = EventType("order.shipment.recalled", Shipment)


def reserve_stock(connection: Connection, purchase: Purchase, sku: str, quantity: int) -> Reservation:
    """Take the goods out of the stock; raises `OutOfStock` and `UnknownArticle`."""
    enough = (stock.c.sku == sku) & (stock.c.available >= quantity)
    taken = update(stock).where(enough).values(available=stock.c.available - quantity).returning(stock.c.price_cents)
    price_cents = connection.scalar(taken)
    if price_cents is None:
        available = connection.scalar(select(stock.c.available).where(stock.c.sku == sku))
        if available is None:
            raise UnknownArticle(sku, list(connection.scalars(select(stock.c.sku).order_by(stock.c.sku))))
        raise OutOfStock(sku, quantity, available)
    row = {"sku": sku, "quantity": quantity, "status": "reserved", "reserved_at": _now(), "released_at": None}
    _put(connection, stock_reservations, purchase, row)
    reservation = Reservation(purchase.order, sku, quantity, price_cents * quantity)
    _publish(connection, purchase, StockReserved, reservation)
    return reservation


def release_stock(
    connection: Connection, reservation: Reservation | None, purchase: Purchase, sku: str, quantity: int
) -> None:
    """Put the goods back, once."""
    mine = (stock_reservations.c.order_id == purchase.order) & (stock_reservations.c.status == "reserved")
    released = update(stock_reservations).where(mine).values(status="released", released_at=_now())
    if connection.execute(released).rowcount == 0:
        return
    connection.execute(update(stock).where(stock.c.sku == sku).values(available=stock.c.available + quantity))
    total_cents = reservation.total_cents if reservation else 0
    _publish(connection, purchase, StockReleased, Reservation(purchase.order, sku, quantity, total_cents))


def take_payment(connection: Connection, purchase: Purchase, card: CardToken, amount_cents: int) -> Payment:
    """Take the money, once until it is refunded; raises `CardDeclined`."""
    payment = Payment(purchase.order, amount_cents, card)
    earlier = connection.scalars(select(payments.c.status).where(payments.c.order_id == purchase.order)).all()
    if "captured" in earlier:
        return payment
    if card == "tok_declined":
        raise CardDeclined(card, "the bank refuses it")
    if amount_cents > CARD_LIMIT_CENTS:
        why = f"{amount_cents / 100:.2f} is over its limit of {CARD_LIMIT_CENTS / 100:.2f}"
        raise CardDeclined(card, why)
    row = {
        "idempotency_key": f"{purchase.order}:payment:{len(earlier) + 1}",
        "order_id": purchase.order,
        "card": card,
        "amount_cents": amount_cents,
        "status": "captured",
        "captured_at": _now(),
    }
    connection.execute(insert(payments).values(row))
    _publish(connection, purchase, PaymentCaptured, payment)
    return payment


def refund_payment(
    connection: Connection, _payment: Payment | None, purchase: Purchase, card: CardToken, amount_cents: int
) -> None:
    """Give the money back, once."""
    mine = (payments.c.order_id == purchase.order) & (payments.c.status == "captured")
    refunded = update(payments).where(mine).values(status="refunded", refunded_at=_now())
    if connection.execute(refunded).rowcount:
        _publish(connection, purchase, PaymentRefunded, Payment(purchase.order, amount_cents, card))


@step(retries=3)
def book_carrier(order_id: str) -> str:
    """Book a carrier and return the tracking number: the same for every attempt."""
    logger.info("booking a carrier, attempt %d", current_step().attempt)
    digest = hashlib.sha256(current_step().idempotency_key.encode()).hexdigest()
    return f"EVS-{order_id[:8].upper()}-{digest[:10].upper()}"


def ship(connection: Connection, purchase: Purchase, tracking_number: str, address: str) -> Shipment:
    """Hand the goods over."""
    row = {
        "tracking_number": tracking_number,
        "address": address,
        "status": "shipped",
        "shipped_at": _now(),
        "recalled_at": None,
    }
    _put(connection, shipments, purchase, row)
    shipment = Shipment(purchase.order, tracking_number, address)
    _publish(connection, purchase, OrderShipped, shipment)
    return shipment


def recall_shipment(
    connection: Connection, _shipment: Shipment | None, purchase: Purchase, tracking_number: str, address: str
) -> None:
    """Call the goods back, once."""
    mine = (shipments.c.order_id == purchase.order) & (shipments.c.status == "shipped")
    recalled = update(shipments).where(mine).values(status="recalled", recalled_at=_now())
    if connection.execute(recalled).rowcount:
        _publish(connection, purchase, ShipmentRecalled, Shipment(purchase.order, tracking_number, address))


@workflow(name="order", version=1, type="orchestrated saga", errors=(OutOfStock, UnknownArticle, CardDeclined))
async def order(ctx: Context, order: OrderInput) -> OrderResult:
    """Reserve stock, take payment, ship. A declined card or a cancel undoes, in reverse, what was done."""
    purchase = Purchase(ctx.run_id, ctx.run.cause())

    async def reached(stage: Literal["stock", "payment", "shipment"], fraction: float, text: str) -> None:
        logger.info("order %s: %s", ctx.run_id, text)
        await ctx.set_view("stage", text)
        ctx.progress(fraction, text)
        if order.hold_seconds and order.hold_after == stage:
            await ctx.sleep(timedelta(seconds=order.hold_seconds))

    reserved = await ctx.transaction(reserve_stock, purchase, order.sku, order.quantity, undo=release_stock)
    await reached("stock", 0.3, f"{reserved.sku} reserved, {reserved.quantity} of it")
    payment = await ctx.transaction(take_payment, purchase, order.card, reserved.total_cents, undo=refund_payment)
    await reached("payment", 0.6, f"{payment.amount_cents / 100:.2f} paid with {payment.card}")
    tracking_number = await ctx.step(book_carrier, ctx.run_id)
    shipment = await ctx.transaction(ship, purchase, tracking_number, order.address, undo=recall_shipment)
    await reached("shipment", 1.0, f"shipped as {shipment.tracking_number}")
    return OrderResult(
        order=ctx.run_id,
        sku=reserved.sku,
        quantity=reserved.quantity,
        paid_cents=payment.amount_cents,
        card=payment.card,
        tracking_number=shipment.tracking_number,
    )


def _publish[T](connection: Connection, purchase: Purchase, event_type: EventType[T], payload: T) -> None:
    """Tell of a change in the transaction that makes it."""
    source, subject = connection.source, purchase.order
    connection.publish(Event.of(event_type, payload, source=source, subject=subject, cause=purchase.cause))


def _put(connection: Connection, table: Table, purchase: Purchase, row: dict[str, Any]) -> None:
    """Write the order's row; when the run is retried there is one already, of what was undone."""
    if connection.execute(update(table).where(table.c.order_id == purchase.order).values(row)).rowcount == 0:
        connection.execute(insert(table).values(order_id=purchase.order, **row))


def _now() -> int:
    return SystemClock().micros()
