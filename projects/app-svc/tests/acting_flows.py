"""Workflows that act for whoever started them, in every way a run can begin."""

import os
from datetime import timedelta

from lib_events.event import EventType
from lib_workflows import (
    Backoff,
    Context,
    Delegation,
    DelegationRefused,
    Principal,
    Signal,
    current_step,
    step,
    workflow,
)

ORDERS = os.environ["ORDERS_URL"]
READ = Delegation(resource=ORDERS, scope=("orders",))
out_of_order: set[str] = set()
go_on = Signal("go-on", bool)
OrderSeen = EventType("example.order.seen", dict[str, str])


@step(errors=(DelegationRefused,))
async def ask() -> str:
    await current_step().access_token()
    return "may"


async def say(ctx: Context) -> str:
    try:
        return await ctx.step(ask)
    except DelegationRefused as refused:
        return f"{refused.reason}: {refused}"


@workflow(name="patient", acts_for_starter=READ)
async def patient(ctx: Context) -> str:
    """Acts when it is told to go on."""
    await ctx.wait_signal(go_on)
    return await say(ctx)


@workflow(name="busy", acts_for_starter=READ)
async def busy(ctx: Context, steps: int) -> list[str]:
    """Acts in many steps at once and one more, and again when it is told to go on."""
    said = [*await ctx.gather(*(ctx.step(ask) for _ in range(steps))), await ctx.step(ask)]
    await ctx.wait_signal(go_on)
    return [*said, await say(ctx)]


@workflow(name="wide", acts_for_starter=Delegation(resource=ORDERS, scope=("orders", "orders:pay")))
async def wide(ctx: Context) -> str:
    """May do two things, and does none of them."""
    await ctx.wait_signal(go_on)
    return "done"


@step
async def ask_strictly() -> str:
    if "strict" in out_of_order:
        raise RuntimeError("out of order")
    await current_step().access_token()
    return "may"


@workflow(name="strict", acts_for_starter=READ)
async def strict(ctx: Context) -> str:
    return await ctx.step(ask_strictly)


@step(retries=1_000, backoff=Backoff(timedelta(milliseconds=50), maximum=timedelta(milliseconds=200)))
async def ask_patiently() -> str:
    await current_step().access_token()
    return "may"


@workflow(name="persistent", acts_for_starter=READ)
async def persistent(ctx: Context) -> str:
    await ctx.wait_signal(go_on)
    return await ctx.step(ask_patiently)


@workflow(name="brief", acts_for_starter=Delegation(resource=ORDERS, scope=("orders",), lasts=timedelta(seconds=1)))
async def brief(ctx: Context) -> str:
    await ctx.wait_signal(go_on)
    return await say(ctx)


@workflow(name="inner", acts_for_starter=READ)
async def inner(ctx: Context) -> str:
    return await say(ctx)


@workflow(name="outer", acts_for_starter=READ)
async def outer(ctx: Context) -> str:
    return await ctx.child(inner)


@workflow(name="modest-outer")
async def modest_outer(ctx: Context) -> str:
    """Declares nothing: what its child declares nobody was told of."""
    return await ctx.child(inner)


@workflow(name="launcher", acts_for_starter=READ)
async def launcher(ctx: Context) -> str:
    return await ctx.start(inner)


@workflow(name="again", acts_for_starter=READ)
async def again(ctx: Context, lives: int = 0) -> str:
    if lives < 2:
        await ctx.continue_as_new(lives + 1)
    return await say(ctx)


@workflow(name="on-order", on=OrderSeen, acts_for_starter=READ)
async def on_order(ctx: Context, _payload: dict[str, str]) -> str:
    return await say(ctx)


@step
async def who(principal: str) -> str:
    return principal


@workflow(name="plain")
async def plain(ctx: Context) -> str:
    starter: Principal | None = ctx.run.principal
    return await ctx.step(who, starter.subject if starter else "")
