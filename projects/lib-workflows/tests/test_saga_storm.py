"""Sagas of parents and children that fail, are cancelled, run out of time, lose races and their worker.

What was done is undone, once where once is promised, and nothing else is.
"""

import contextlib
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy import select
from storm import SIZE, Done, chance_of, fleet, losing_workers, nothing_is_left, side_by_side

from lib_events.database import Connection
from lib_workflows import Context, WaitTimeout, step, workflow
from lib_workflows.errors import CommandRefused
from lib_workflows.runs import commands
from lib_workflows.tables import runs
from lib_workflows.values.codec import decode_json

TRIPS = 12 * SIZE
WORDS = ["enter", "do", "child", "bad child", "race", "late", "wait", "enter", "do"]
ENDS = {"well": "completed", "fails": "failed", "fail": "failed", "cancel": "cancelled", "deadline": "failed"}


done = Done()


@pytest.fixture(autouse=True)
def _nothing_done():
    done.clear()


@dataclass
class Trip:
    name: str
    parts: list[str]
    limit: int = 2


class Unlucky(Exception):
    pass


def make_ledger(connection: Connection) -> None:
    connection.execute(sa.text("CREATE TABLE IF NOT EXISTS ledger (name TEXT, change INTEGER)"))


def enter(connection: Connection, name: str) -> str:
    connection.execute(sa.text("INSERT INTO ledger (name, change) VALUES (:name, 1)"), {"name": name})
    return name


def withdraw(connection: Connection, entered: str | None, name: str) -> None:
    assert entered == name
    connection.execute(sa.text("INSERT INTO ledger (name, change) VALUES (:name, -1)"), {"name": name})


@step(retries=2)
async def do(name: str) -> str:
    done.did[name] += 1
    return name


@step(errors=(Unlucky,))
async def fail(name: str) -> None:
    raise Unlucky(name)


async def undo(result: str | None, name: str) -> None:
    assert result in {None, name}
    done.undid[name] += 1
    done.undid_unknown[name] += result is None


async def undo_trip(result: str | None, trip: Trip) -> None:
    assert result == trip.name
    done.undid[trip.name] += 1


@workflow(name="trip")
async def take_trip(ctx: Context, trip: Trip) -> str:
    """Do the parts, some side by side."""

    async def part(place: int) -> None:
        await PARTS[trip.parts[place]](ctx, f"{trip.name}.{place}")

    await ctx.map(part, range(len(trip.parts)), limit=trip.limit)
    await ctx.sleep(0.01)
    if "fails" in trip.parts:
        raise Unlucky(trip.name)
    return trip.name


async def entering(ctx: Context, name: str) -> None:
    await ctx.transaction(enter, name, undo=withdraw)


async def doing(ctx: Context, name: str) -> None:
    await ctx.step(do, name, undo=undo)


async def failing(ctx: Context, name: str) -> None:
    await ctx.sleep(0.01)
    await ctx.step(fail, name, undo=undo)


async def coming_late(ctx: Context, name: str) -> None:
    with contextlib.suppress(WaitTimeout):
        async with ctx.timeout(0.01):
            await ctx.step(do, name, undo=undo)
            await ctx.sleep(3600)


async def racing(ctx: Context, name: str) -> None:
    await ctx.race(
        ctx.transaction(enter, f"{name}.a", undo=withdraw),
        ctx.transaction(enter, f"{name}.b", undo=withdraw),
        ctx.step(do, f"{name}.c", undo=undo),
        ctx.child(take_trip, Trip(f"{name}.d", ["enter", "wait", "do"]), undo=undo_trip),
    )


async def with_child(ctx: Context, name: str) -> None:
    await ctx.child(take_trip, Trip(name, ["enter", "do", "enter"]), undo=undo_trip)


async def with_bad_child(ctx: Context, name: str) -> None:
    with contextlib.suppress(Unlucky):
        await ctx.child(take_trip, Trip(name, ["enter", "do", "child", "fail"]), undo=undo_trip)


async def waiting(ctx: Context, name: str) -> None:
    await ctx.sleep(0.02)


PARTS = {
    "enter": entering,
    "do": doing,
    "fail": failing,
    "fails": waiting,
    "late": coming_late,
    "race": racing,
    "child": with_child,
    "bad child": with_bad_child,
    "wait": waiting,
}


def trips_of(chance):
    """How each trip shall end, and what its parts are."""
    for number in range(TRIPS):
        how, parts = list(ENDS)[number % len(ENDS)], chance.choices(WORDS, k=5)
        if how in {"fails", "fail"}:
            parts.insert(chance.randint(0, 5), how)
        yield how, Trip(f"trip-{number}", parts, limit=chance.randint(1, 4))


async def test_what_was_done_is_undone_and_nothing_else(database_url):
    chance = chance_of("trips")
    trips = list(trips_of(chance))
    async with fleet(database_url, [take_trip], "sagas") as made:
        await made.transact(make_ledger)
        for how, trip in trips:
            soon = datetime.now(UTC) + timedelta(milliseconds=chance.randint(1, 300))
            async with made.engine() as engine:
                await engine.start(take_trip, trip, id=trip.name, deadline=soon if how == "deadline" else None)
        async with losing_workers(made, 3 * SIZE):
            await side_by_side(*(cancel(made, trip.name) for how, trip in trips if how == "cancel"))
        ended = await made.until_ended([trip.name for _, trip in trips])
        for how, trip in trips:
            run = ended[trip.name]
            assert run.status in {ENDS[how], "completed"} - ({"completed"} if how.startswith("fail") else set())
            await check(made, trip.name, run.status)
        await no_child_outlives_its_parent(made)
        await nothing_is_left(made)


async def cancel(made, run_id):
    await made.pause(300)
    with contextlib.suppress(CommandRefused):
        await made.transact(commands.cancel, run_id)


async def check(made, trip, status):
    entered, withdrawn = await ledger_of(made, trip)
    assert set(entered.values()) | set(withdrawn.values()) <= {1}, (trip, entered, withdrawn)
    assert withdrawn.keys() <= entered.keys()
    for name in beneath(trip, done.undid):
        known = done.did[name] or name in await completed_children(made, trip)
        assert known or done.undid_unknown[name], f"{name} was undone and never done"
    if status == "completed":
        return
    children = await completed_children(made, trip)
    # What a child that completed has done is undone by its parent's undo, and not by its own.
    own = {name for name in [*entered, *beneath(trip, done.did)] if name.rpartition(".")[0] not in children}
    assert {name for name in own if not withdrawn[name] and not done.undid[name]} == set()
    parentless = {child for child in children if not any(child in beneath(other, children) for other in children)}
    assert {child for child in parentless if not done.undid[child]} == set()


def beneath(trip, names):
    return {name for name in names if name.startswith(f"{trip}.")}


async def ledger_of(made, trip):
    rows = await made.read(lambda c: c.execute(sa.text("SELECT name, change FROM ledger")).all())
    mine = beneath(trip, {name for name, _ in rows})
    entered = Counter(name for name, change in rows if name in mine and change > 0)
    return entered, Counter(name for name, change in rows if name in mine and change < 0)


async def completed_children(made, trip):
    query = select(runs.c.input).where(runs.c.parent.is_not(None), runs.c.status == "completed")
    return beneath(trip, {decode_json(text)["name"] for text in await made.read(lambda c: c.scalars(query).all())})


async def no_child_outlives_its_parent(made):
    parent = runs.alias()
    outlived = select(runs.c.id).join(parent, parent.c.id == runs.c.parent)
    outlived = outlived.where(parent.c.ended_at.is_not(None), runs.c.ended_at.is_(None))
    assert await made.read(lambda c: c.scalars(outlived).all()) == []
