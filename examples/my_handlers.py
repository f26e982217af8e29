"""Event handlers of your own, in one file: `uv run evs up --workflows examples/my_handlers.py`.

Publish an order with `uv run evs event publish example.order.placed -d '{"id": "42", "cents": 995}'` and follow what
comes of it with `uv run evs event tail --type 'example.*'`.
"""

from pydantic import BaseModel, Field

from lib_events.database import Connection
from lib_events.event import Event, EventType
from lib_events.subscription import GiveUp, current_delivery, subscribe


class Order(BaseModel):
    """What is ordered."""

    id: str
    cents: int = Field(ge=0)


class Bill(BaseModel):
    """What is to be paid."""

    order: str
    cents: int


OrderPlaced = EventType("example.order.placed", Order)
Billed = EventType("example.order.billed", Bill)


# --8<-- [start:handlers]
@subscribe(OrderPlaced, durable="example-billing")
def bill(connection: Connection, order: Order) -> None:
    """Exactly once: the event it publishes and its place in the log are one transaction."""
    if order.cents > 1_000_000:
        raise GiveUp("nobody pays that much")  # a dead letter at once: trying again is of no use
    connection.publish(
        Event.of(Billed, Bill(order=order.id, cents=order.cents), source=connection.source, subject=order.id)
    )


@subscribe(Billed, durable="example-mail", concurrency=8, key=lambda event: event.subject, attempts=10)
async def send_mail(found: Bill) -> None:
    """At least once, eight at a time, those of one order in order; the key tells the other side of a repetition."""
    await mail_to_customer(f"Please pay {found.cents / 100:.2f}", key=current_delivery().idempotency_key)


# --8<-- [end:handlers]
async def mail_to_customer(text: str, *, key: str) -> None:
    """Where a mail service would be called."""
    print(f"{text} [{key}]")
