"""A workflow that never ends: it looks at a price every day, on its own history of a day at a time.

uv run evs up --workflows examples/watch_prices.py
uv run evs run start watch-price -p name=copper -p limit=100
"""

from dataclasses import dataclass
from datetime import timedelta

from lib_workflows import Context, NonRetryable, current_step, step, workflow


@dataclass
class Watch:
    name: str
    limit: float
    days: int = 0


@step(retries=5, timeout=timedelta(seconds=10), total_timeout=timedelta(hours=1))
async def fetch_price(name: str) -> float:
    """Ask the market. An answer that no retry can mend ends the attempts."""
    if not name.isalpha():
        raise NonRetryable(f"no market trades {name!r}")
    return float(len(name) * 10)


@step(process=True, heartbeat_timeout=timedelta(minutes=1))
def forecast(price: float, rounds: int) -> float:
    """Keep a CPU busy, in a process of its own; after a crash go on from the last heartbeat."""
    done, value = current_step().last_progress or (0, price)
    for number in range(done, rounds):
        value = value * 0.9 + price * 0.1
        current_step().heartbeat((number + 1, value))
    return round(value, 2)


@step
async def tell(name: str, price: float) -> None:
    """Send somebody a message."""


@workflow(name="watch-price", type="monitor")
async def watch_price(ctx: Context, watch: Watch) -> None:
    """Look at a price every day, for ever, and tell when it is past its limit."""
    price = await ctx.step(fetch_price, watch.name)
    if ctx.patched("forecast"):  # runs that were past this place before go on without
        price = await ctx.step(forecast, price, 100)
    if price > watch.limit:
        await ctx.step(tell, watch.name, price)
    await ctx.set_tags({"price": str(price)})
    await ctx.sleep(timedelta(days=1))
    await ctx.continue_as_new(Watch(watch.name, watch.limit, watch.days + 1))
