"""A workflow of your own in one file: `uv run evs up --workflows examples/my_flows.py`."""

from datetime import timedelta

from pydantic import BaseModel, Field

from lib_workflows import Context, EventType, WaitTimeout, step, workflow


class Booking(BaseModel):
    """What somebody wants to book."""

    guest: str = Field(min_length=1, description="Who comes")
    nights: int = Field(default=1, ge=1, le=30)


class Confirmation(BaseModel):
    """What the guest gets."""

    booking: str
    price: float
    paid: bool


class Payment(BaseModel):
    """Somebody paid for a booking."""

    booking: str
    amount: float


PaymentReceived = EventType("hotel.payment.received", Payment)
BookingConfirmed = EventType("hotel.booking.confirmed", Confirmation)


@step(retries=3, timeout=timedelta(seconds=10))
async def quote(nights: int) -> float:
    """Ask what the nights cost."""
    return 80.0 * nights


@workflow(name="book-a-room", type="wait for an event")
async def book_a_room(ctx: Context, booking: Booking) -> Confirmation:
    """Quote a price, wait a while for the payment, and confirm either way."""
    price = await ctx.step(quote, booking.nights)
    try:
        await ctx.wait_event(PaymentReceived, match={"booking": ctx.run_id}, timeout=timedelta(minutes=15))
        paid = True
    except WaitTimeout:
        paid = False
    confirmation = Confirmation(booking=ctx.run_id, price=price, paid=paid)
    await ctx.publish(BookingConfirmed, confirmation)
    return confirmation
