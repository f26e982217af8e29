"""What the marathon runs: ten workflows, and what must be true of each of their runs however often processes die."""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

from pydantic import BaseModel
from sqlalchemy import text

from lib_events.database import Connection
from lib_workflows import (
    Backoff,
    Context,
    EventType,
    Queue,
    RunHandle,
    Signal,
    WaitTimeout,
    Workflow,
    current_step,
    step,
)
from lib_workflows import workflow as declare

FAST = Backoff(initial=timedelta(milliseconds=5), maximum=timedelta(milliseconds=20))
STEP_SECONDS = 0.002
LIVES = 3
CHILDREN = 3
AT_ONCE = 20  # children under way at most, of all parents


class Made(BaseModel):
    """Something was made."""

    number: int


Happened = EventType("marathon.happened", Made)
go = Signal("go", int)


class Refused(Exception):
    """What a saga fails with."""


def make_effects(connection: Connection) -> None:
    """Make the table that shows how often a transaction had its effect: nothing in it is unique."""
    connection.execute(text("CREATE TABLE IF NOT EXISTS effects (run TEXT NOT NULL, what TEXT NOT NULL)"))


def note(connection: Connection, run: str, what: str) -> None:
    """Have an effect."""
    connection.execute(text("INSERT INTO effects (run, what) VALUES (:run, :what)"), {"run": run, "what": what})


def undo_note(connection: Connection, _result: None, run: str, what: str) -> None:
    """Have the effect that undoes one."""
    note(connection, run, f"undo {what}")


@step
async def work(number: int) -> int:
    """Take a moment, in which the process may die."""
    await asyncio.sleep(STEP_SECONDS)
    return number + 1


@step
def work_in_a_thread(number: int) -> int:
    """Take a thread."""
    return number + 1


@step(retries=5, backoff=FAST)
async def stumble(number: int) -> int:
    """Fail at first."""
    if current_step().attempt == 1:
        raise ConnectionError("away")
    return number


@step(errors=(Refused,))
async def refuse(number: int) -> None:
    """Fail for good."""
    raise Refused(str(number))


@declare(name="steps")
async def steps(ctx: Context, number: int) -> int:
    """Steps on the loop and in a thread."""
    return await ctx.step(work_in_a_thread, await ctx.step(work, await ctx.step(work, number)))


@declare(name="exactly-once")
async def exactly_once(ctx: Context, number: int) -> int:
    """Transactions around a step."""
    await ctx.transaction(note, ctx.run_id, "first")
    number = await ctx.step(work, number)
    await ctx.transaction(note, ctx.run_id, "second")
    return number


@declare(name="signalled")
async def signalled(ctx: Context, number: int) -> int:
    """Wait for somebody."""
    heard = await ctx.wait_signal(go)
    await ctx.transaction(note, ctx.run_id, "heard")
    return heard - number


@declare(name="child", queue=Queue("children", concurrency=AT_ONCE))
async def child(ctx: Context, label: str) -> str:
    """Be waited for, in a queue with few slots."""
    await ctx.step(work, 1)
    await ctx.transaction(note, label, "child")
    return label


@declare(name="parent")
async def parent(ctx: Context, _number: int) -> list[str]:
    """Fan out and in."""
    return await ctx.gather(*(ctx.child(child, f"{ctx.run_id}/{index}") for index in range(CHILDREN)), limit=2)


@declare(name="timers")
async def timers(ctx: Context, number: int) -> int:
    """Sleep, race, and wait in vain: for a signal, and for somebody's decision."""
    await ctx.sleep(0.01 * (number % 50))
    index, _ = await ctx.race(ctx.sleep(60), ctx.step(work, number))
    try:
        await ctx.wait_signal(go, timeout=0.05)
    except WaitTimeout:
        await ctx.transaction(note, ctx.run_id, "in vain")
    asked, _ = await ctx.race(ctx.approval("never", text="?", to="role:nobody"), ctx.sleep(0.02))
    return index + asked


@declare(name="saga", errors=(Refused,))
async def saga(ctx: Context, number: int) -> None:
    """Be undone."""
    await ctx.transaction(note, ctx.run_id, "flight", undo=undo_note)
    await ctx.transaction(note, ctx.run_id, "hotel", undo=undo_note)
    await ctx.step(refuse, number)


@declare(name="cancelled")
async def cancelled(ctx: Context, _number: int) -> int:
    """Hold something until somebody cancels."""
    await ctx.transaction(note, ctx.run_id, "held", undo=undo_note)
    return await ctx.wait_signal(go)


@declare(name="flaky")
async def flaky(ctx: Context, number: int) -> int:
    """Be tried again."""
    number = await ctx.step(stumble, number)
    await ctx.transaction(note, ctx.run_id, "at last")
    return number


@declare(name="publisher")
async def publisher(ctx: Context, number: int) -> None:
    """Tell somebody."""
    await ctx.publish(Happened, Made(number=number))


@declare(name="listener")
async def listener(ctx: Context, number: int) -> int:
    """Start somebody apart, and wait for what it tells."""
    await ctx.start(publisher, number)
    happened = await ctx.wait_event(Happened, match={"number": number})
    await ctx.transaction(note, ctx.run_id, "listened")
    return happened.number


class Life(BaseModel):
    """Which of its lives a run is in."""

    number: int
    left: int = LIVES


@declare(name="lives")
async def lives(ctx: Context, number: int) -> str:
    """Hand over to a run that begins again and again."""
    return await ctx.child(one_life, Life(number=number))


@declare(name="one-life")
async def one_life(ctx: Context, life: Life) -> str:
    """Begin again with another input."""
    await ctx.transaction(note, f"marathon-{life.number}", f"life {life.left}")
    if life.left > 1:
        await ctx.continue_as_new(Life(number=life.number, left=life.left - 1))
    return "over"


FLOWS: tuple[Workflow[int, object], ...] = (
    steps, exactly_once, signalled, parent, timers, saga, cancelled, flaky, listener, lives,
)  # fmt: skip
WORKFLOWS = (*FLOWS, child, publisher, one_life)
STATUSES = {"saga": "failed", "cancelled": "cancelled"}

type Effects = Counter[tuple[str, str]]


def run_id(number: int) -> str:
    """The id of the marathon's n-th run."""
    return f"marathon-{number}"


def flow_of(number: int) -> Workflow[int, object]:
    """What the marathon's n-th run runs."""
    return FLOWS[number % len(FLOWS)]


def status_of(number: int) -> str:
    """How the n-th run must end."""
    return STATUSES.get(flow_of(number).name, "completed")


EXPECTED: dict[str, tuple[str, ...]] = {
    "steps": (),
    "exactly-once": ("first", "second"),
    "signalled": ("heard",),
    "parent": (),
    "timers": ("in vain",),
    "saga": ("flight", "hotel", "undo hotel", "undo flight"),
    "flaky": ("at last",),
    "listener": ("listened",),
    "lives": tuple(f"life {left}" for left in range(LIVES, 0, -1)),
}


def expected_effects(number: int, found: Effects) -> Effects:
    """What the transactions of the n-th run must have left behind, each exactly once."""
    run, name = run_id(number), flow_of(number).name
    if name == "parent":
        return Counter({(f"{run}/{index}", "child"): 1 for index in range(CHILDREN)})
    if name == "cancelled":  # the cancellation may have come before it held anything
        return Counter({(run, "held"): 1, (run, "undo held"): 1} if found[run, "held"] else {})
    return Counter({(run, what): 1 for what in EXPECTED[name]})


async def _signal(handle: RunHandle[object], number: int) -> None:
    await handle.signal(go, number)


async def _cancel(handle: RunHandle[object], _number: int) -> None:
    await handle.cancel()


# What people do to runs of these workflows.
DONE_TO: dict[str, Callable[[RunHandle[object], int], object]] = {"signalled": _signal, "cancelled": _cancel}
