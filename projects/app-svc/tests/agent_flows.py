"""Workflows that agents start in tests: what they take, give, wait for and do not manage."""

from dataclasses import dataclass

from lib_workflows import Context, Delegation, Signal, Update, workflow

go_on = Signal("go-on", str)
ask = Update("ask", int, int)


@dataclass
class Parcel:
    """A parcel, and what is in it."""

    weight: int
    inside: "list[Parcel] | None" = None


@workflow(name="count.up")
async def count_up(_ctx: Context, number: int) -> int:
    """Count one further."""
    return number + 1


@workflow(name="weigh")
async def weigh(_ctx: Context, parcel: Parcel) -> Parcel:
    """Weigh a parcel."""
    return parcel


@workflow(name="patient")
async def patient(ctx: Context) -> str:
    """Wait until told to go on."""
    return await ctx.wait_signal(go_on)


@workflow(name="answering")
async def answering(ctx: Context) -> int:
    """Answer one number that is not negative."""
    while True:
        call = await ctx.wait_update(ask)
        if call.value >= 0:
            await call.reply(call.value * 2)
            return call.value
        await call.reject("must not be negative")


@workflow(name="asking")
async def asking(ctx: Context, whom: str) -> bool:
    """Ask somebody."""
    return (await ctx.approval("ship", text="Ship it?", to=whom)).approved


@workflow(name="long-winded")
async def long_winded(_ctx: Context, letters: int) -> str:
    """Say much."""
    return "x" * letters


@workflow(name="failing")
async def failing(_ctx: Context) -> None:
    """Fail."""
    raise RuntimeError("out of paper")


@workflow(name="for-me", acts_for_starter=Delegation(resource="https://orders.example", scope=("orders",)))
async def for_me(_ctx: Context) -> None:
    """Act for whoever starts it."""
