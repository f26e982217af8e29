"""Queues with few slots whose runs are cancelled, retried, forked and paused while workers are lost.

There are never more under way than there are slots, no slot is lost, and whoever waits has their turn.
"""

import asyncio
from collections import Counter
from contextlib import suppress
from datetime import timedelta

from pydantic import BaseModel
from sqlalchemy import select
from storm import SIZE, fleet, losing_workers, nothing_is_left, side_by_side

from lib_workflows import Context, Queue, Rate, Signal, workflow
from lib_workflows.errors import CommandRefused
from lib_workflows.runs.commands import cancel
from lib_workflows.runs.rewind import retry
from lib_workflows.tables import runs

RUNS = 25 * SIZE
KINDS = ("sleeps", "waits", "goes on", "fails", "ends")
SLOTS, PER_KEY, NARROW = 4, 2, 1

go_on = Signal("go-on", str)


class Letter(BaseModel):
    to: str
    kind: str


async def act(ctx: Context, letter: Letter) -> str:
    match letter.kind:
        case "sleeps":
            await ctx.sleep(timedelta(milliseconds=5))
        case "waits":
            await ctx.wait_signal(go_on, timeout=timedelta(milliseconds=30))
        case "goes on":
            await ctx.continue_as_new(Letter(to=letter.to, kind="ends"))
        case "fails":
            raise ValueError(letter.to)
    return letter.to


@workflow(name="send", queue=Queue("a-post", concurrency=SLOTS, key="to", per_key=PER_KEY), errors=(TimeoutError,))
async def send(ctx: Context, letter: Letter) -> str:
    return await act(ctx, letter)


@workflow(name="print", queue=Queue("b-printer", concurrency=NARROW, rate=Rate(1_000)), errors=(TimeoutError,))
async def print_out(ctx: Context, letter: Letter) -> str:
    return await act(ctx, letter)


@workflow(name="free", errors=(TimeoutError,))
async def free(ctx: Context, letter: Letter) -> str:
    return await act(ctx, letter)


FLOWS = (send, print_out, free)


class Clerk:
    """Starts runs and does to them what may be done."""

    def __init__(self, made):
        self.made, self.started = made, []

    async def act(self):
        chance = self.made.chance
        for _ in range(RUNS):
            await self.made.pause(30)
            async with self.made.engine() as engine:
                letter = Letter(to=chance.choice("abc"), kind=chance.choice(KINDS))
                self.started.append((await engine.start(chance.choice(FLOWS), letter)).id)
                await self._meddle(engine, engine.handle(chance.choice(self.started)), chance)

    async def _meddle(self, engine, handle, chance):
        with suppress(CommandRefused):
            match chance.choice(["cancel", "retry", "fork", "signal", "pause", "resume", "resume"]):
                case "cancel":
                    await engine.database.transact(cancel, handle.id)
                case "retry":
                    await engine.database.transact(retry, handle.id)
                case "fork":
                    self.started.append((await handle.fork()).id)
                case "signal":
                    await handle.signal(go_on, "on")
                case "pause":
                    await engine.queues.pause(chance.choice(["a-post", "b-printer"]))
                case "resume":
                    await engine.queues.resume(chance.choice(["a-post", "b-printer"]))


class Watch:
    """Looks, again and again, how many are under way."""

    def __init__(self, made):
        self.made, self.most = made, Counter()

    async def look(self):
        while True:
            for what, count in (await self.made.read(_under_way)).items():
                self.most[what] = max(self.most[what], count)
            await asyncio.sleep(0.005)


def _under_way(connection):
    """How many runs are under way in each limited queue, and of each key."""
    columns = (runs.c.queue, runs.c.queue_key, runs.c.slot)
    query = select(*columns).where(runs.c.ended_at.is_(None), runs.c.status.in_(("running", "waiting")))
    found = Counter()
    for row in connection.execute(query.where(runs.c.queue.in_(("a-post", "b-printer")))):
        assert row.slot == row.queue, "who is under way has a slot"
        found[row.queue] += 1
        if row.queue_key is not None:
            found[f"key {row.queue_key}"] += 1
    return found


async def test_no_slot_is_lost_and_none_is_taken_twice(database_url):
    async with fleet(database_url, FLOWS, "queues") as made:
        clerks, watch = [Clerk(made), Clerk(made)], Watch(made)
        watching = asyncio.ensure_future(watch.look())
        try:
            async with losing_workers(made, 4 * SIZE):
                await side_by_side(*(clerk.act() for clerk in clerks))
            async with made.engine() as engine:
                for queue in ("a-post", "b-printer"):
                    await engine.queues.resume(queue)
            ended = await made.until_ended([run_id for clerk in clerks for run_id in clerk.started])
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
        assert watch.most["a-post"] <= SLOTS, watch.most
        assert watch.most["b-printer"] <= NARROW, watch.most
        assert all(count <= PER_KEY for what, count in watch.most.items() if what.startswith("key ")), watch.most
        assert {row.status for row in ended.values()} <= {"completed", "failed", "cancelled"}
        await nothing_is_left(made)
