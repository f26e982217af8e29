"""A run that cannot be saved is loaded again later and later: what it does meanwhile it does again each time."""

import asyncio
from itertools import pairwise
from typing import ClassVar

import pytest

from lib_events.database import CommitFailed
from lib_workflows import Backoff, Context, Engine, step, workflow
from lib_workflows.statements import APPEND_HISTORY
from lib_workflows.workers import reloads
from lib_workflows.workers.reloads import Reloads

TRIES = 5


async def test_while_a_disk_is_full_a_step_is_repeated_less_and_less_often(sqlite_url, monkeypatch):
    monkeypatch.setattr(reloads, "FIRST_SECONDS", 0.05)
    began = []

    @step
    async def charge() -> int:
        began.append(asyncio.get_running_loop().time())
        return len(began)

    @workflow(name="charging")
    async def charging(ctx: Context) -> int:
        return await ctx.step(charge)

    async with Engine.open(sqlite_url, [charging]) as engine:
        committer = engine.database._committer
        commit = committer._commit

        async def commit_while_there_is_room(group):
            saved = {write.statement for member in group for write in member.writes}
            if APPEND_HISTORY in saved and len(began) < TRIES:
                raise CommitFailed("the disk is full")
            await commit(group)

        committer._commit = commit_while_there_is_room
        assert await (await engine.start(charging)).result(30) == TRIES
    for number, (one, other) in enumerate(pairwise(began)):
        assert other - one >= 0.05 * 2**number


class Moody(Backoff):
    """A backoff of somebody's own, which cannot always say how long to wait."""

    asked: ClassVar[list[int]] = []

    def pause_seconds(self, attempt, what=""):
        self.asked.append(attempt)
        if len(self.asked) == 1:
            raise LookupError("ask me later")
        return 0.0


@pytest.mark.parametrize("pause", [None, 0.01])
async def test_a_run_whose_steps_end_cannot_be_dealt_with_is_loaded_again(sqlite_url, pause, caplog):
    """`pause`: whether the step ends as it begins, or later, when nothing else is done for its run."""
    Moody.asked.clear()
    fails = [True, True]

    @step(retries=5, backoff=Moody())
    async def charge() -> str:
        if pause is not None:
            await asyncio.sleep(pause)
        if fails:
            raise ConnectionError(str(fails.pop()))
        return "charged"

    @workflow(name="charging")
    async def charging(ctx: Context) -> str:
        return await ctx.step(charge)

    async with Engine.open(sqlite_url, [charging]) as engine:
        handle = await engine.start(charging)
        assert await handle.result(10) == "charged"
    assert f"run {handle.id} is put aside" in caplog.text


async def test_no_run_stays_away_for_long_and_one_that_is_well_again_begins_anew(monkeypatch):
    known = Reloads()
    pauses = [known.pause_seconds("unlucky") for _ in range(8)]
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0]
    assert known.pause_seconds("another") == pytest.approx(0.5)
    later = asyncio.get_running_loop().time() + 20.0 + reloads.WELL_SECONDS
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: later + 1)
    assert known.pause_seconds("unlucky") == pytest.approx(0.5)
    assert known.pause_seconds("unlucky") == pytest.approx(1.0)


async def test_runs_that_failed_long_ago_are_forgotten(monkeypatch):
    known = Reloads()
    for number in range(100):
        known.pause_seconds(f"run-{number}")
    later = asyncio.get_running_loop().time() + 1 + reloads.WELL_SECONDS
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: later)
    known.pause_seconds("another")
    assert list(known._away) == ["another"]
