"""A SQLite file that somebody else locks: an engine loses no run, and a second engine is told why it may not begin."""

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from flows import doubling

from lib_events.adapters import sqlite
from lib_events.database import CommitFailed, DatabaseInUse
from lib_events.testing import wait_until
from lib_workflows import Context, Engine, Signal, workflow

go = Signal("go", int)
SECOND = """
import asyncio, sys
from lib_workflows import Engine

async def main():
    async with Engine.open(sys.argv[1], []):
        pass

asyncio.run(main())
"""


@pytest.fixture
def other_program(tmp_path):
    connection = sqlite3.connect(tmp_path / "test.db", autocommit=True, check_same_thread=False)
    yield connection
    connection.close()


@workflow(name="adds")
async def adds(ctx: Context, number: int) -> int:
    first = await ctx.wait_signal(go)
    return number + first + await ctx.child(doubling, number)


async def test_a_lock_of_another_program_costs_no_run(sqlite_url, other_program, monkeypatch):
    """Longer than a commit waits: what was decided meanwhile is lost, and decided again."""
    monkeypatch.setattr(sqlite, "LOCKED_SECONDS", 0.05)
    async with Engine.open(sqlite_url, [adds, doubling]) as engine:
        handles = [await engine.start(adds, number, id=f"adds-{number}") for number in range(5)]
        for handle in handles[:4]:
            await handle.signal(go, 1)
        other_program.execute("BEGIN IMMEDIATE")
        with pytest.raises(CommitFailed, match="database is locked; end what has it open"):
            await handles[4].signal(go, 1)
        with pytest.raises(CommitFailed, match="database is locked"):
            await engine.start(doubling, 21, id="later")
        assert await handles[4].status() in ("running", "waiting")  # reading goes on
        other_program.execute("ROLLBACK")
        await handles[4].signal(go, 1)
        results = [await handle.result(10) for handle in handles]
        assert results == [number + 1 + 2 * number for number in range(5)]
        assert await (await engine.start(doubling, 21, id="later")).result(10) == 42


async def test_a_short_lock_is_not_noticed(sqlite_url, other_program):
    async with Engine.open(sqlite_url, [doubling]) as engine:
        other_program.execute("BEGIN IMMEDIATE")
        starting = asyncio.ensure_future(engine.start(doubling, 4, id="patient"))
        await wait_until(lambda: engine.database._committer._running is not None)
        other_program.execute("ROLLBACK")
        assert await (await starting).result(10) == 8


async def test_a_second_engine_on_a_file_is_refused_and_the_first_goes_on(sqlite_url, tmp_path):
    async with Engine.open(sqlite_url, [doubling]) as engine:
        with pytest.raises(DatabaseInUse, match="in use by process"):
            async with Engine.open(sqlite_url, [doubling]):
                pass
        second = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", SECOND, sqlite_url], capture_output=True, text=True, timeout=60
        )
        assert second.returncode == 1
        assert "use PostgreSQL for more than one process" in second.stderr
        assert await (await engine.start(doubling, 4)).result(10) == 8
    assert Path(tmp_path / "test.db").exists()
