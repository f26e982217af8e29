"""A workflow that calls another team's service as the person who started it: `evs up --workflows my_orders.py`.

The service is `orders_service.py`; `evs admin resource edit orders --actor evs-app` lets runs call it.
"""

import os
from dataclasses import dataclass
from datetime import timedelta

import httpx

from lib_workflows import Context, Delegation, current_step, step, workflow

ORDERS = os.environ.get("ORDERS_URL", "http://127.0.0.1:8010")


@dataclass(frozen=True)
class Wish:
    """When."""

    days: int = 0


NOW = Wish()


# --8<-- [start:step]
@step(retries=5)
async def read_orders() -> list[str]:
    """The orders of whoever started the run."""
    token = await current_step().access_token(resource=ORDERS, scope=("orders",))
    async with httpx.AsyncClient(base_url=ORDERS) as orders:
        answer = await orders.get("/orders", headers={"authorization": f"Bearer {token}"})
    answer.raise_for_status()
    found: list[str] = answer.json()
    return found


@workflow(
    name="my-orders",
    acts_for_starter=Delegation(resource=ORDERS, scope=("orders",), lasts=timedelta(days=30)),
)
async def my_orders(ctx: Context, wish: Wish = NOW) -> list[str]:
    """Read your orders, days from now perhaps: long after you have signed out."""
    await ctx.sleep(timedelta(days=wish.days))
    return await ctx.step(read_orders)


# --8<-- [end:step]
