"""A parcel from its label to the carrier: a table of your own, a child, a person, and messages to a run under way.

uv run evs up --workflows examples/ship_parcel.py
uv run evs run start ship-parcel -p to=Ada -p grams=700
uv run evs run update ID change-weight --input 650    # answered by the run: the new price
uv run evs run signal ID change-address --input '"Elm Street 1"'
uv run evs run view ID parcel
uv run evs approval approve APPROVAL                  # as a person: evs auth login
"""

from datetime import timedelta

from pydantic import BaseModel, Field
from sqlalchemy import Column, Integer, MetaData, String, Table, delete, insert
from sqlalchemy.schema import CreateTable

from lib_events.database import Connection
from lib_workflows import Context, NonRetryable, Signal, Update, WaitTimeout, step, workflow

bookings = Table(
    "parcel_bookings", MetaData(), Column("parcel", String, primary_key=True), Column("grams", Integer, nullable=False)
)
# What is sent to a run while it goes on: a signal is kept until the run waits for it, an update is answered.
address_changed = Signal("change-address", str)
weight_changed = Update("change-weight", int, float)


class Parcel(BaseModel):
    """What is sent, and to whom."""

    to: str = Field(min_length=1, description="Who gets it")
    grams: int = Field(default=500, ge=1)


@step(retries=3, timeout=timedelta(seconds=10))
async def print_label(to: str) -> str:
    """Ask the carrier for a label."""
    return f"label for {to}"


async def void_label(label: str | None, to: str) -> None:
    """Undo `print_label`; without a label it is not known whether there is one."""


def book(connection: Connection, parcel: str, grams: int) -> None:
    """Write into a table of ours, in one transaction with the run's history: exactly once."""
    connection.execute(CreateTable(bookings, if_not_exists=True))
    connection.execute(insert(bookings).values(parcel=parcel, grams=grams))


def cancel_booking(connection: Connection, _result: None, parcel: str, _grams: int) -> None:
    """Undo `book`, in a transaction, too."""
    connection.execute(delete(bookings).where(bookings.c.parcel == parcel))


@step(retries=3, timeout=timedelta(seconds=10))
async def fetch_tariff() -> dict[str, float]:
    """Ask the carrier what it takes."""
    return {"parcel": 4.0, "gram": 0.01}


@workflow(name="price-parcel")
async def price_parcel(ctx: Context, grams: int) -> float:
    """Say what a parcel costs; a run of its own, seen and retried like any other."""
    tariff = await ctx.step(fetch_tariff)
    return round(tariff["parcel"] + grams * tariff["gram"], 2)


@workflow(name="ship-parcel", type="orchestrated saga")
async def ship_parcel(ctx: Context, parcel: Parcel) -> str:
    """Label and book a parcel; hear of changes for a while; ask somebody; undo both when it is not sent."""
    label = await ctx.step(print_label, parcel.to, undo=void_label)
    await ctx.transaction(book, ctx.run_id, parcel.grams, undo=cancel_booking)
    price, address = await ctx.child(price_parcel, parcel.grams), "the address we know"
    await ctx.set_view("parcel", {"label": label, "price": price})
    try:
        async with ctx.timeout(timedelta(hours=1)):
            change = await ctx.wait_update(weight_changed)
            price = await ctx.child(price_parcel, change.value)
            await change.reply(price)
            address = await ctx.wait_signal(address_changed, timeout=timedelta(minutes=10))
    except WaitTimeout:
        pass  # nobody wants anything changed
    decision = await ctx.approval("send", text=f"Send {label} to {address} for {price:.2f}?", to="role:operator")
    if not decision.approved:
        raise NonRetryable(f"{decision.by} does not want it sent")  # what fails a run has it undo what it did
    return f"{label}, to {address}, for {price:.2f}"
