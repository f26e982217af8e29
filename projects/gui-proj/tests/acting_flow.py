"""Workflows that act for whoever starts them, at the AppService itself, and one that says when it starts."""

import os

from lib_workflows import Context, Cron, Delegation, Signal, current_step, step, workflow

HERE = f"http://127.0.0.1:{os.environ['EVS_APP_PORT']}"


go_on = Signal("go-on", bool)


@step
async def ask() -> int:
    return len(await current_step().access_token()) and 1


@workflow(name="acting", acts_for_starter=Delegation(resource=HERE, scope=("workflows:read",)))
async def acting(ctx: Context) -> int:
    """Looks at your workflows."""
    return await ctx.step(ask)


@workflow(name="acting-patiently", acts_for_starter=Delegation(resource=HERE, scope=("workflows:run",)))
async def acting_patiently(ctx: Context) -> int:
    """Does so when it is told to go on."""
    await ctx.wait_signal(go_on)
    return await ctx.step(ask)


@workflow(name="declared", schedule=Cron("0 5 1 1 *"))
async def declared(_ctx: Context) -> None:
    """Starts by the clock, as it says itself."""
