"""A SQLite database is backed up with Python alone while it is at work, and its runs go on from the copy."""

import asyncio
import subprocess
import sys

from flows import address_changed

from lib_events.testing import wait_until
from lib_workflows import Context, Engine, step, workflow

printed = []


@step
async def print_label(to: str) -> str:
    printed.append(to)
    return f"label for {to}"


@workflow(name="to-be-restored")
async def to_be_restored(ctx: Context) -> str:
    label = await ctx.step(print_label, "Ada")
    return f"{label}, to {await ctx.wait_signal(address_changed)}"


async def test_a_run_goes_on_from_a_backup_that_was_made_while_it_was_under_way(tmp_path):
    printed.clear()
    async with Engine.open(f"sqlite:///{tmp_path}/app.db", [to_be_restored]) as engine:
        handle = await engine.start(to_be_restored)

        async def is_waiting():
            return await handle.status() == "waiting"

        await wait_until(is_waiting)
        command = [sys.executable, "-m", "sqlite3", f"{tmp_path}/app.db", f"VACUUM INTO '{tmp_path}/backup.db'"]
        await asyncio.to_thread(subprocess.run, command, check=True, timeout=60)
        await handle.signal(address_changed, "Elm Street")  # which the backup knows nothing of
        assert await handle.result(10) == "label for Ada, to Elm Street"
    async with Engine.open(f"sqlite:///{tmp_path}/backup.db", [to_be_restored]) as engine:
        handle = engine.handle(handle.id)
        await handle.signal(address_changed, "Oak Street")
        assert await handle.result(10) == "label for Ada, to Oak Street"
    assert printed == ["Ada"]
