"""The engine within a program of your own, without any service: `python embedded_engine.py sqlite:///work.db`."""

import asyncio
import sys

from lib_workflows import Context, Engine, step, workflow


@step
async def ask_price(nights: int) -> float:
    """Ask what the nights cost."""
    return 80.0 * nights


@workflow(name="offer")
async def offer(ctx: Context, nights: int) -> float:
    """Make an offer."""
    return await ctx.step(ask_price, nights)


# --8<-- [start:embedded]
async def main(url: str) -> None:
    """Make one offer; started again it finds it made."""
    async with Engine.open(url, workflows=[offer]) as engine:
        handle = await engine.start(offer, 2, id="offer-1")
        print(await handle.result(timeout=30))


# --8<-- [end:embedded]

if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
