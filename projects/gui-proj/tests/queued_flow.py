"""Workflows whose runs share queues: of one anybody changes the limits, of the other the code does."""

from dataclasses import dataclass
from datetime import timedelta

from lib_workflows import Context, Queue, Rate, Signal, workflow

stamped = Signal("stamped", bool)


@workflow(name="letter", queue="mail")
async def letter(ctx: Context) -> bool:
    """Is under way until somebody stamps it."""
    return await ctx.wait_signal(stamped)


@dataclass(frozen=True)
class Sheet:
    customer: str


PRESS = Queue("press", concurrency=2, rate=Rate(100, timedelta(minutes=1)), key="customer", per_key=1)


@workflow(name="print", queue=PRESS)
async def print_(_ctx: Context, sheet: Sheet) -> None:
    """Goes where the code says how many may be under way."""
