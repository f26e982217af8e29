"""Uses and misuses of the public API, for type checkers: never run, but read by mypy and by pyright.

A line that ends in `# error` must be refused, every other must not; what is revealed must be what its comment says.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import reveal_type

from lib_events.database import Connection
from lib_workflows import (
    Context,
    Engine,
    EventType,
    Principal,
    RunHandle,
    Signal,
    Update,
    current_step,
    step,
    workflow,
)


@dataclass
class Order:
    id: str
    amount: int


@dataclass
class Receipt:
    order: str


OrderPlaced = EventType("shop.order.placed", Order)
address_changed = Signal("address-changed", str)
change_quantity = Update("change-quantity", int, Receipt)


@step
async def charge(order: Order) -> Receipt:
    current_step().heartbeat({"row": 1})
    return Receipt(order.id)


@step(retries=3, timeout=timedelta(seconds=5), errors=(ValueError,))
def count(name: str, times: int) -> int:
    return len(name) * times


@step(process=True)
def nothing() -> None: ...


async def refund(receipt: Receipt | None, order: Order) -> None: ...


async def refund_other(receipt: int | None, order: Order) -> None: ...


def reserve(connection: Connection, sku: str, amount: int) -> int:
    return amount


def release(connection: Connection, held: int | None, sku: str, amount: int) -> None: ...


@step
async def release_elsewhere(held: int | None, sku: str, amount: int) -> None: ...


@workflow(name="ship")
async def ship(ctx: Context, order: Order) -> Receipt:
    return await ctx.step(charge, order)


@workflow(name="tick")
async def tick(ctx: Context) -> int:
    return 1


reveal_type(charge)  # Step[Order, Receipt]
reveal_type(count)  # Step[str, int, int]
reveal_type(nothing)  # Step[None]
reveal_type(ship)  # Workflow[Order, Receipt]
reveal_type(tick)  # Workflow[int]


async def uses(ctx: Context, order: Order) -> None:
    reveal_type(await ctx.step(charge, order))  # Receipt
    reveal_type(await ctx.step(charge, order, undo=refund))  # Receipt
    reveal_type(await ctx.step(count, "a", 3))  # int
    reveal_type(await ctx.step(nothing))  # None
    reveal_type(await ctx.transaction(reserve, "sku", 3))  # int
    reveal_type(await ctx.transaction(reserve, "sku", 3, undo=release))  # int
    reveal_type(await ctx.transaction(reserve, "sku", 3, undo=release_elsewhere))  # int
    reveal_type(await ctx.signal("run-1", address_changed, "Elm Street"))  # None
    reveal_type(await ctx.child(ship, order))  # Receipt
    reveal_type(await ctx.child(tick))  # int
    reveal_type(await ctx.start(ship, order))  # str
    reveal_type(await ctx.child(ship, order, id="a"))  # Receipt
    reveal_type(await ctx.gather(ctx.step(charge, order), ctx.child(ship, order)))  # list[Receipt]
    reveal_type(await ctx.gather(*(ctx.child(ship, order) for _ in range(3)), limit=2))  # list[Receipt]
    reveal_type(await ctx.map(lambda number: ctx.step(count, "a", number), [1, 2], limit=2))  # list[int]
    reveal_type(await ctx.race(ctx.child(tick), ctx.step(count, "a", 1)))  # tuple[int, int]
    reveal_type(await ctx.race(ctx.sleep(60), ctx.step(charge, order)))  # tuple[int, Receipt | None]
    reveal_type(await ctx.wait_signal(address_changed, timeout=timedelta(hours=1)))  # str
    reveal_type(await ctx.wait_event(OrderPlaced, match={"id": order.id}))  # Order
    call = await ctx.wait_update(change_quantity)
    reveal_type(call.value)  # int
    reveal_type(await call.reply(Receipt("a")))  # None
    reveal_type((await ctx.approval("a", text="?", to="role:x")).approved)  # bool
    reveal_type(await ctx.publish(OrderPlaced, order))  # None
    await ctx.sleep(1.5)
    async with ctx.timeout(timedelta(hours=2)):
        await ctx.set_view("status", {"a": [1]})


async def handles(engine: Engine, order: Order) -> None:
    reveal_type(await engine.start(ship, order, id="a"))  # RunHandle[Receipt]
    reveal_type(await (await engine.start(ship, order)).result(timeout=3))  # Receipt
    reveal_type(await (await engine.start(tick)).result())  # int
    reveal_type(await engine.start_many(ship, [order]))  # list[RunHandle[Receipt]]
    reveal_type(await engine.handle("a", ship).result())  # Receipt
    handle: RunHandle[Receipt] = engine.handle("a", ship)
    reveal_type(await handle.update(change_quantity, 3))  # Receipt
    await handle.signal(address_changed, "Elm Street")
    await handle.decide("a", approved=True, by=Principal("grace"))


async def misuses(ctx: Context, engine: Engine, order: Order) -> None:
    await ctx.signal("run-1", address_changed, 5)  # error
    await ctx.transaction(reserve, "sku", 3, undo=charge)  # error
    await ctx.step(charge, "order")  # error
    await ctx.step(charge)  # error
    await ctx.step(charge, order, order)  # error
    await ctx.step(count, 3, "a")  # error
    await ctx.step(refund, None, order)  # error
    await ctx.step(charge, order, undo=refund_other)  # error
    await ctx.step(charge, order, retries=3)  # error
    await ctx.transaction(reserve, "sku", "many")  # error
    await ctx.transaction(reserve, "sku", 3, undo=refund)  # error
    await ctx.child(ship, "order")  # error
    await ctx.child(ship)  # error
    await ctx.child(charge, order)  # error
    await ctx.start(ship, 1)  # error
    await ctx.start(ship, order, id="a", on_conflict="ignore")  # error
    await ctx.wait_signal("address-changed")  # error
    await ctx.wait_event(address_changed)  # error
    await ctx.publish(OrderPlaced, "order")  # error
    await ctx.sleep("soon")  # error
    call = await ctx.wait_update(change_quantity)
    await call.reply("done")  # error
    await engine.start(ship, "order")  # error
    await engine.start(ship)  # error
    await engine.start_many(ship, ["order"])  # error
    handle = await engine.start(ship, order)
    await handle.signal(address_changed, 5)  # error
    await handle.update(change_quantity, "many")  # error
    wrong: int = await handle.result()  # error
    other: str = await ctx.step(charge, order)  # error
    raise ValueError(wrong, other)


@step  # error
async def keyword(order: Order, *, loud: bool) -> None: ...


@workflow(name="no-context")  # error
async def no_context(order: Order) -> None: ...


@workflow(name="no-coroutine")  # error
def no_coroutine(ctx: Context) -> None: ...
