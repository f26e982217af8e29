"""Workflows that require something of their worker run where it is to be had, and only there."""

import asyncio
import logging

import pytest
from flows import doubling

from lib_events.clock import SystemClock
from lib_events.lifecycle import running
from lib_events.testing import wait_until
from lib_workflows import Context, DefinitionError, Engine, Registry, workflow
from lib_workflows.reading import queries
from lib_workflows.workers import arrivals
from lib_workflows.workers.unclaimed import LATE_SECONDS, UnclaimedAlarm


@workflow(name="train", requires={"gpu"})
async def train(ctx: Context) -> str:
    return "trained"


@workflow(name="print", requires={"gpu", "in-the-office"})
async def print_out(ctx: Context) -> str:
    return "printed"


@workflow(name="asks-for-training")
async def asks_for_training(ctx: Context) -> str:
    return await ctx.child(train)


WORKFLOWS = [train, print_out, asks_for_training, doubling]


async def test_a_worker_without_the_tag_leaves_the_run_alone(database_url):
    async with Engine.open(database_url, WORKFLOWS) as engine:
        handles = [await engine.start(train), await engine.start(asks_for_training)]
        assert await (await engine.start(doubling, 4)).result(10) == 8
        assert [await handle.status() for handle in handles] == ["queued", "waiting"]
    async with Engine.open(database_url, WORKFLOWS, tags={"gpu"}) as engine:
        printed = await engine.start(print_out)
        for handle in handles:
            assert await engine.handle(handle.id, train).result(10) == "trained"
        assert await printed.status() == "queued"
    async with Engine.open(database_url, WORKFLOWS, tags=["in-the-office", "gpu"]) as engine:
        assert await engine.handle(printed.id, print_out).result(10) == "printed"


@pytest.mark.postgresql
async def test_of_two_workers_the_one_with_the_tag_takes_the_run(postgresql_url):
    async with (
        Engine.open(postgresql_url, WORKFLOWS) as bare,
        Engine.open(postgresql_url, WORKFLOWS, tags={"gpu"}) as tagged,
    ):
        handle = await bare.start(asks_for_training)
        assert await handle.result(10) == "trained"
        runs = (await bare.database.read(queries.list_runs, queries.RunFilter(parent=handle.id))).items
        assert [run.status for run in runs] == ["completed"]
        assert tagged.residence.is_quiet


async def test_the_alarm_says_which_tags_are_missing(database_url, caplog):
    class LaterClock(SystemClock):
        def micros(self):
            return super().micros() + int(LATE_SECONDS * 2e6)

    async with Engine.open(database_url, WORKFLOWS) as engine:
        await engine.start(print_out)
        alarm = UnclaimedAlarm(engine.database, LaterClock(), registry=Registry.of(WORKFLOWS), look_seconds=0.005)
        with caplog.at_level(logging.ERROR):
            async with running(alarm):
                await wait_until(lambda: asyncio.sleep(0, "with the tags gpu, in-the-office" in caplog.text))


def test_tags_are_names(subtests):
    for wrong in ("gpu", {"a b"}, {""}, {7}):
        with subtests.test(repr(wrong)), pytest.raises(DefinitionError, match="must be a set of names"):
            workflow(name="w", requires=wrong)(train.function)


@workflow(name="is-elsewhere", queue="elsewhere")
async def is_elsewhere(ctx: Context) -> str:
    return "there"


@workflow(name="asks-elsewhere", queue="here")
async def asks_elsewhere(ctx: Context) -> str:
    return await ctx.child(is_elsewhere)


@pytest.mark.postgresql
async def test_a_child_that_only_another_worker_can_take_begins_there_at_once(postgresql_url, monkeypatch):
    """And not with that worker's next poll."""
    monkeypatch.setattr(arrivals, "POLL_SECONDS", 600.0)
    flows = [asks_elsewhere, is_elsewhere]
    async with (
        Engine.open(postgresql_url, flows, queues=["here"]) as here,
        Engine.open(postgresql_url, flows, queues=["elsewhere"]) as there,
    ):
        await wait_until(lambda: there.residence.arrivals.is_pausing)
        assert await (await here.start(asks_elsewhere)).result(20) == "there"
