"""Programs drawn by chance: whatever a workflow can ask for within whatever else, cancelled, and left by their workers.

Each ends, its history repeats itself, what a failed one did is undone and nothing else is, and nothing is left.
"""

import asyncio
import contextlib
import itertools
from typing import Any

import pytest
import sqlalchemy as sa
from flows import OrderPlaced, address_changed
from sqlalchemy import select
from storm import SIZE, Done, chance_of, fleet, losing_workers, nothing_is_left, side_by_side

from lib_events.database import Connection
from lib_workflows import Context, NonRetryable, current_step, step, workflow
from lib_workflows.authoring.retry import Backoff
from lib_workflows.errors import CommandRefused, Nondeterministic
from lib_workflows.runs import commands
from lib_workflows.tables import runs
from lib_workflows.testing import export_history, replay_history

PROGRAMS = 24 * SIZE
AT_ONCE = 24
MOMENTS = [0.001, 0.005, 0.02]
HOW = ["well", "well", "slow", "slow", "flaky", "declared", "fails"]

type Program = list[Any]  # a word, and what it is about


done = Done()  # by run and name


@pytest.fixture(autouse=True)
def _nothing_done():
    done.clear()


class Unlucky(Exception):
    pass


def make_ledger(connection: Connection) -> None:
    connection.execute(sa.text("CREATE TABLE IF NOT EXISTS ledger (run TEXT, name TEXT, change INTEGER)"))


def enter(connection: Connection, run: str, name: str) -> str:
    _change(connection, run, name, 1)
    return name


def withdraw(connection: Connection, entered: str | None, run: str, name: str) -> None:
    _change(connection, run, name, -1 if entered == name else -100)


def enter_and_refuse(connection: Connection, run: str, name: str) -> str:
    _change(connection, run, name, 1)
    raise Unlucky(name)


def _change(connection: Connection, run: str, name: str, change: int) -> None:
    row = {"run": run, "name": name, "change": change}
    connection.execute(sa.text("INSERT INTO ledger (run, name, change) VALUES (:run, :name, :change)"), row)


@step(retries=2, errors=(Unlucky,), backoff=Backoff(jitter=1.0))
async def do(run: str, name: str, how: str) -> str:
    if how == "slow":
        await asyncio.sleep(0.01)
    if how == "flaky" and current_step().attempt == 1:
        raise ConnectionError(name)
    if how == "declared":
        raise Unlucky(name)
    done.did[run, name] += 1
    if how == "fails":
        raise NonRetryable(name)
    return name


@step
def do_in_a_thread(run: str, name: str, how: str) -> str:
    done.did[run, name] += 1
    return name


async def undo(result: str | None, run: str, name: str, how: str) -> None:
    done.undid[run, name] += 1
    done.undid_unknown[run, name] += result is None


@workflow(name="program")
async def run_program(ctx: Context, program: Program) -> None:
    """Do what the program says."""
    await play(ctx, program)


async def play(ctx: Context, program: Program) -> None:  # noqa: C901, PLR0912 - one line for each word
    match program:
        case ["enter", name]:
            await ctx.transaction(enter, ctx.run_id, name, undo=withdraw)
        case ["refuse", name]:
            await ctx.transaction(enter_and_refuse, ctx.run_id, name, undo=withdraw)
        case ["do", name, how]:
            await ctx.step(do, ctx.run_id, name, how, undo=undo)
        case ["thread", name]:
            await ctx.step(do_in_a_thread, ctx.run_id, name, "", undo=undo)
        case ["sleep", seconds]:
            await ctx.sleep(seconds)
        case ["signal", seconds]:
            await ctx.wait_signal(address_changed, timeout=seconds)
        case ["event", seconds]:
            await ctx.wait_event(OrderPlaced, {"id": ctx.run_id}, timeout=seconds)
        case ["approval", seconds]:
            await ctx.approval("go-on", text="Go on?", to="user:u1", timeout=seconds)
        case ["raise"]:
            raise Unlucky("as told")
        case ["show", name]:
            await ctx.set_view("last", name)
            await ctx.set_tags({"last": name})
        case ["all", limit, *parts]:
            await ctx.gather(*(play(ctx, part) for part in parts), limit=limit)
        case ["first", *parts]:
            await ctx.race(*(play(ctx, part) for part in parts))
        case ["then", *parts]:
            for part in parts:
                await play(ctx, part)
        case ["in time", seconds, part]:
            async with ctx.timeout(seconds):
                await play(ctx, part)
        case ["get over", part]:
            with contextlib.suppress(Exception):
                await play(ctx, part)
        case ["clean up", part, name]:
            try:
                await play(ctx, part)
            finally:
                await ctx.step(do, ctx.run_id, name, "well", undo=undo)
        case ["child", part]:
            await ctx.child(run_program, part)
        case ["chance", one, other]:
            await play(ctx, one if ctx.random() < 0.5 else other)
        case ["patched", name, part]:
            if ctx.patched(name):
                await play(ctx, part)


def draw(chance, names, depth):
    """A program that nests so deep."""
    name = f"n{next(names)}"
    leaves = [["enter", name]] * 3 + [["do", name, chance.choice(HOW)]] * 3 + [["sleep", chance.choice(MOMENTS)]] * 2
    leaves += [[word, chance.choice(MOMENTS)] for word in ("signal", "event", "approval")]
    leaves += [["thread", name], ["refuse", name], ["show", name], ["raise"]]
    if depth == 0 or chance.random() < 0.2:
        return chance.choice(leaves)
    parts = [draw(chance, names, depth - 1) for _ in range(chance.randint(2, 4))]
    nests = [["then", *parts]] * 3 + [["all", chance.choice([None, 1, 2]), *parts]] * 2 + [["first", *parts]] * 2
    nests += [["in time", chance.choice([*MOMENTS, 5.0]), parts[0]]] * 2 + [["get over", parts[0]]] * 2
    nests += [["clean up", parts[0], name], ["child", parts[0]], ["chance", *parts[:2]], ["patched", name, parts[0]]]
    return chance.choice(nests)


async def test_whatever_a_program_asks_for_it_ends_and_what_a_failed_one_did_is_undone(database_url):
    chance = chance_of("programs")
    depths = [chance.randint(2, 5) for _ in range(PROGRAMS)]
    programs = {f"program-{n}": draw(chance, itertools.count(), depth) for n, depth in enumerate(depths)}
    async with fleet(database_url, [run_program], "workers of programs") as made:
        await made.transact(make_ledger)
        for some in itertools.batched(programs, AT_ONCE, strict=False):
            for run_id in some:
                async with made.engine() as engine:
                    await engine.start(run_program, ["then", programs[run_id], ["sleep", 0.01]], id=run_id)
            async with losing_workers(made, 3):
                await side_by_side(*(meddle(made, run_id) for run_id in some))
            await made.until_ended(some)
            await check(made)
            for run_id in some:
                await repeats_itself(made, run_id)
        await nothing_is_left(made)


async def meddle(made, run_id):
    for _ in range(2):
        await made.pause(300)
        with contextlib.suppress(CommandRefused):
            if made.chance.random() < 0.3:
                await made.transact(commands.cancel, run_id)
            else:
                await made.transact(commands.send_signal, run_id, address_changed.name, '"there"')


async def check(made):
    found = {row.id: row for row in await made.read(lambda c: c.execute(select(runs)).all())}
    assert {row.status for row in found.values()} <= {"completed", "failed", "cancelled"}
    query = sa.text("SELECT run, name, sum(change) AS total, count(*) AS number FROM ledger GROUP BY run, name")
    for row in await made.read(lambda c: c.execute(query).all()):
        expected = (1, 1) if found[row.run].status == "completed" else (0, 2)
        assert (row.total, row.number) == expected, (row, found[row.run].status, found[row.run].input)
    for run_id, name in done.did.keys() - done.undid.keys():
        assert found[run_id].status == "completed", (name, found[run_id].input)
    for run_id, name in done.undid:
        assert found[run_id].status != "completed", (name, found[run_id].input)
        assert done.did[run_id, name] or done.undid_unknown[run_id, name], (name, found[run_id].input)


async def repeats_itself(made, run_id):
    async with made.engine() as engine:
        exported = await export_history(engine, run_id)
    try:
        replay_history(run_program, exported)
        ended = "completed"
    except Nondeterministic:
        raise
    except BaseException:  # noqa: BLE001 - how the program itself ends
        ended = "failed"
    assert (exported["run"]["status"] == "completed") == (ended == "completed")
