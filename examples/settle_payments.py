"""Workflows that want many events at once, or only some of them: `evs up --workflows examples/settle_payments.py`."""

from datetime import timedelta

from pydantic import BaseModel

from lib_workflows import Batch, Context, EventType, step, workflow

LARGE = 100_000


class Payment(BaseModel):
    """Somebody has paid a merchant."""

    merchant: str
    cents: int


PaymentCaptured = EventType("market.payment.captured", Payment)


# --8<-- [start:batch]
@step(retries=5)
async def pay_out(merchant: str, cents: int) -> str:
    """Transfer what a merchant has earned."""
    return f"{cents} to {merchant}"


@workflow(
    name="settle",
    type="batch",
    on=PaymentCaptured,
    batch=Batch(events=100, timeout=timedelta(seconds=5), key="merchant"),
)
async def settle(ctx: Context, payments: list[Payment]) -> str:
    """Pay a merchant out once for many payments."""
    return await ctx.step(pay_out, payments[0].merchant, sum(payment.cents for payment in payments))


# --8<-- [end:batch]
# --8<-- [start:wait]
@workflow(name="first-large-payment")
async def first_large_payment(ctx: Context, merchant: str) -> Payment:
    """Wait for one that is large enough."""
    async with ctx.timeout(timedelta(days=7)):
        while True:
            payment = await ctx.wait_event(PaymentCaptured, match={"merchant": merchant})
            if payment.cents >= LARGE:  # each that came is in the history: a replay decides the same
                return payment


# --8<-- [end:wait]
# --8<-- [start:ignore]
@step
async def thank(merchant: str) -> str:
    """Write to a merchant who is paid so much."""
    return f"thanks to {merchant}"


@workflow(name="thank-for-large-payments", on=PaymentCaptured)
async def thank_for_large_payments(ctx: Context, payment: Payment) -> str | None:
    """Let the others be: their runs have ended as they begin."""
    return await ctx.step(thank, payment.merchant) if payment.cents >= LARGE else None


# --8<-- [end:ignore]
