"""A worker of its own, to be killed or stopped: `python worker_process.py URL LEASE_SECONDS [RUN_ID …]`.

It starts the runs that it is told to, says "begun" for each, and works until standard input ends.
"""

import asyncio
import sys
import time
from pathlib import Path

import sqlalchemy as sa

from lib_events.database import Connection
from lib_workflows import Context, Engine, Signal, step, workflow

go = Signal("go", str)
BLOCKS_SECONDS = 2.0


def count(connection: Connection, run: str, what: str) -> None:
    """Have an effect that shows how often it was had."""
    connection.execute(sa.text("INSERT INTO counted (run, what) VALUES (:run, :what)"), {"run": run, "what": what})


def make_counted(connection: Connection) -> None:
    """Make the table of the effects."""
    connection.execute(sa.text("CREATE TABLE IF NOT EXISTS counted (run TEXT, what TEXT)"))


def counted(connection: Connection, run: str) -> list[str]:
    """The effects of a run."""
    return sorted(connection.scalars(sa.text("SELECT what FROM counted WHERE run = :run"), {"run": run}))


@workflow(name="held")
async def held(ctx: Context) -> str:
    """Have an effect, wait for a signal, have another."""
    await ctx.transaction(count, ctx.run_id, "begun")
    heard = await ctx.wait_signal(go)
    await ctx.transaction(count, ctx.run_id, heard)
    return heard


@step
async def wait_for_file(path: str) -> str:
    """Take as long as a test wants, on the loop."""
    Path(f"{path}.begun").touch()
    while not Path(path).exists():  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(0.01)
    return "done"


@step
async def block_the_loop(path: str) -> None:
    """Block everything in this process for longer than its lease."""
    tries = Path(path)
    tries.write_text((tries.read_text() if tries.exists() else "") + "tried\n")
    time.sleep(BLOCKS_SECONDS)  # noqa: ASYNC251 - the fault to be shown


@workflow(name="long")
async def long(ctx: Context, path: str) -> str:
    """One long step between two effects."""
    await ctx.transaction(count, ctx.run_id, "begun")
    done = await ctx.step(wait_for_file, path)
    await ctx.transaction(count, ctx.run_id, done)
    return done


@workflow(name="blocking")
async def blocking(ctx: Context, path: str) -> str:
    """One step that blocks."""
    await ctx.step(block_the_loop, path)
    await ctx.transaction(count, ctx.run_id, "blocked")
    return "blocked"


@workflow(name="ticked")
async def ticked(ctx: Context) -> None:
    """One effect."""
    await ctx.transaction(count, ctx.run.tags["schedule"], ctx.run_id)


WORKFLOWS = [held, long, blocking, ticked]


async def main() -> None:
    """Work."""
    url, lease_seconds, *arguments = sys.argv[1:]
    async with Engine.open(url, WORKFLOWS, lease_seconds=float(lease_seconds)) as engine:
        await engine.database.transact(make_counted)
        for run_id in arguments:
            name, _, path = run_id.partition(":")
            if path:
                await engine.start(engine.registry.find(name), path, id=name)
            else:
                await engine.start(held, id=run_id)
        sys.stdout.write("begun\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
