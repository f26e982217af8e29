"""Steps: their limits, their heartbeats, and where they run."""

import asyncio
import contextlib
import functools
import os
import sqlite3
import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest
from flows import FAST
from process_steps import (
    Overdrawn,
    beats_something_odd,
    dies_at_first,
    divides,
    gives_what_cannot_be_pickled,
    never_ends,
    overdraws,
    pid_of_step,
    returns_a_lock,
    says,
    says_where_it_is,
    silent_in_a_process,
)
from sqlalchemy import select

from lib_events.testing import wait_until
from lib_workflows import (
    Context,
    DefinitionError,
    Engine,
    NonRetryable,
    RunCancelled,
    StepFailed,
    current_step,
    step,
    workflow,
)
from lib_workflows.authoring.step import Step, StepOptions
from lib_workflows.reading import queries
from lib_workflows.steps import attempt
from lib_workflows.tables import heartbeats
from lib_workflows.testing import environment
from lib_workflows.workers.limits import Limits

MOMENT = timedelta(milliseconds=30)
FOR_EVER_SECONDS = 30.0  # nothing here may wait so long


def running_alone(tried):
    """A workflow of that one step."""

    @workflow(name="alone")
    async def alone(ctx: Context) -> str:
        return await ctx.step(tried)

    return alone


async def failure_of(url, tried, **options):
    async with Engine.open(url, [alone := running_alone(tried)], **options) as engine:
        with pytest.raises(StepFailed) as caught:
            await (await engine.start(alone)).result(10)
        return caught.value


async def test_what_no_retry_can_mend_is_not_retried(sqlite_url):
    tries = []

    @step(retries=5, backoff=FAST)
    async def hopeless() -> str:
        tries.append(1)
        raise NonRetryable("no such account")

    error = await failure_of(sqlite_url, hopeless)
    assert (error.attempts, error.error.type, len(tries)) == (1, "NonRetryable", 1)


async def test_the_total_timeout_bounds_attempts_and_pauses(sqlite_url):
    @step(retries=1000, backoff=FAST, total_timeout=timedelta(milliseconds=300))
    async def failing() -> str:
        raise LookupError("not yet")

    error = await failure_of(sqlite_url, failing)
    assert error.error.type == "LookupError"  # what went wrong, not that it took long
    assert 1 < error.attempts < 1000


async def test_the_total_timeout_ends_an_attempt(sqlite_url):
    @step(retries=5, total_timeout=MOMENT, timeout=timedelta(seconds=FOR_EVER_SECONDS))
    async def hanging() -> str:
        await asyncio.Event().wait()
        return ""

    error = await failure_of(sqlite_url, hanging)
    assert "with all its attempts" in error.error.message
    assert error.attempts == 1


async def test_the_total_timeout_counts_while_nobody_is_there(sqlite_url):
    tries = []

    @step(retries=3, total_timeout=timedelta(hours=1))
    async def late() -> str:
        tries.append(1)
        raise LookupError("down")

    alone = running_alone(late)
    async with environment(sqlite_url, [alone]) as env:
        await env.engine.start(alone, id="late")
        await wait_until(lambda: asyncio.sleep(0, bool(tries)))
        before = len(tries)
        start = env.now + timedelta(hours=2)
    async with environment(sqlite_url, [alone], start=start) as env:
        with pytest.raises(StepFailed, match="LookupError: down"):
            await env.result(env.engine.handle("late", alone))
    assert len(tries) == before


async def test_a_step_whose_time_is_over_before_its_first_attempt_has_ended_fails_for_that(sqlite_url):
    tries = []

    @step(retries=3, total_timeout=timedelta(hours=1))
    async def interrupted() -> None:
        tries.append(1)
        await asyncio.Event().wait()

    alone = running_alone(interrupted)
    async with environment(sqlite_url, [alone]) as env:
        await env.engine.start(alone, id="late")
        await wait_until(lambda: asyncio.sleep(0, bool(tries)))
        start = env.now + timedelta(hours=2)
        await env.engine.abandon()
    async with environment(sqlite_url, [alone], start=start) as env:
        with pytest.raises(StepFailed, match=r"StepTimeout: .* 3600\.0 s"):
            await env.result(env.engine.handle("late", alone))
    assert len(tries) == 1


async def test_a_step_that_finds_no_thread_in_time_never_begins(sqlite_url):
    held, tries = threading.Event(), []

    @step
    def holding() -> str:
        held.wait(FOR_EVER_SECONDS)
        return "held"

    @step(start_timeout=MOMENT, retries=5)
    def crowded() -> str:
        tries.append(1)
        return ""

    @workflow(name="crowd")
    async def crowd(ctx: Context) -> str:
        try:
            await ctx.gather(ctx.step(holding), ctx.step(crowded))
        finally:
            held.set()
        return ""

    async with Engine.open(sqlite_url, [crowd], limits=Limits(step_threads=1)) as engine:
        with pytest.raises(StepFailed, match=r"find a free thread or process within 0\.03 s") as caught:
            await (await engine.start(crowd)).result(10)
    assert caught.value.attempts == 1
    assert not tries


@pytest.mark.parametrize("ends", [RunCancelled, StepFailed])
async def test_a_step_that_ends_while_it_waits_for_a_thread_never_begins(sqlite_url, ends):
    held, taken, tries = threading.Event(), threading.Event(), []

    @step
    def holding() -> None:
        taken.set()
        held.wait(FOR_EVER_SECONDS)

    @step(total_timeout=None if ends is RunCancelled else MOMENT)
    def crowded() -> None:
        tries.append(1)

    @workflow(name="crowd")
    async def crowd(ctx: Context, waits: bool) -> None:
        await ctx.step(crowded if waits else holding)

    async with Engine.open(sqlite_url, [crowd], limits=Limits(step_threads=1)) as engine:
        holder = await engine.start(crowd, False)
        await wait_until(taken.is_set)
        handle = await engine.start(crowd, True)
        if ends is RunCancelled:
            await wait_until(lambda: engine.residence.executors[handle.id].running)
            await handle.cancel()
        with pytest.raises(ends):
            await handle.result(10)
        held.set()
        await holder.result(10)
        await (await engine.start(crowd, False)).result(10)  # its thread has passed what waited before
    assert not tries


async def test_the_timeout_of_an_attempt_does_not_count_while_it_waits_for_a_thread(sqlite_url):
    @step
    def slow(number: int) -> int:
        time.sleep(0.1)
        return number

    @step(timeout=timedelta(milliseconds=90))
    def quick(number: int) -> int:
        return number

    @workflow(name="queue")
    async def queue(ctx: Context) -> list[int]:
        return await ctx.gather(ctx.step(slow, 1), ctx.step(quick, 2))

    async with Engine.open(sqlite_url, [queue], limits=Limits(step_threads=1)) as engine:
        assert await (await engine.start(queue)).result(10) == [1, 2]


@pytest.mark.parametrize("kind", ["async", "thread", "process"])
async def test_an_attempt_without_heartbeats_is_ended_and_made_again(sqlite_url, kind):
    tried = {"async": silent_async, "thread": silent_in_a_thread, "process": silent_in_a_process}[kind]
    async with Engine.open(sqlite_url, [alone := running_alone(tried)]) as engine:
        handle = await engine.start(alone)
        assert await handle.result(30) == "attempt 2"
        (entry,) = await engine.database.read(queries.get_history, handle.id)
    assert entry.attempt == 2


@step(heartbeat_timeout=10 * MOMENT, retries=1, backoff=FAST)
async def silent_async() -> str:
    if current_step().attempt == 1:
        await asyncio.Event().wait()
    for _ in range(6):
        current_step().heartbeat()
        await asyncio.sleep(2 * MOMENT.total_seconds())  # longer in all than it may be silent
    return f"attempt {current_step().attempt}"


@step(heartbeat_timeout=MOMENT, retries=1, backoff=FAST)
def silent_in_a_thread() -> str:
    if current_step().attempt == 1:
        while not current_step().cancelled:
            time.sleep(0.001)
    return f"attempt {current_step().attempt}"


# Progress


@step(retries=3, backoff=FAST)
async def copies_rows(rows: int) -> list[int]:
    first = current_step().last_progress or 0
    for row in range(first, rows):
        current_step().heartbeat(row)
        if row == 3 and current_step().attempt == 1:
            raise ConnectionError("lost")
    return [first, current_step().attempt]


@workflow(name="copying")
async def copying(ctx: Context, rows: int) -> list[int]:
    return await ctx.step(copies_rows, rows)


async def test_the_next_attempt_goes_on_from_the_last_progress(database_url):
    async with Engine.open(database_url, [copying]) as engine:
        assert await (await engine.start(copying, 10)).result(10) == [3, 2]


async def test_progress_survives_the_process(database_url):
    stuck = asyncio.Event()

    @step(name="long")
    async def first_life() -> str:
        current_step().heartbeat({"row": 7})
        await stuck.wait()
        return ""

    @step(name="long")
    async def second_life() -> str:
        return str(current_step().last_progress)

    async with Engine.open(database_url, [alone := running_alone(first_life)], lease_seconds=1.0) as engine:
        handle = await engine.start(alone)
        await wait_until(lambda: engine.database.read(_progress_kept))
        await engine.abandon()
    async with Engine.open(database_url, [alone := running_alone(second_life)], lease_seconds=1.0) as engine:
        assert await engine.handle(handle.id, alone).result(20) == "{'row': 7}"


def _progress_kept(connection):
    return connection.scalar(select(heartbeats.c.progress))


async def test_what_is_done_again_after_a_retry_begins_anew(sqlite_url):
    seen = []

    @step
    async def reporting() -> None:
        seen.append(current_step().last_progress)
        current_step().heartbeat(100)
        await asyncio.sleep(0)  # the heartbeat is kept by the loop
        if len(seen) == 1:
            raise LookupError("after the last row")

    @workflow(name="reporting")
    async def report(ctx: Context) -> None:
        await ctx.step(reporting)

    async with Engine.open(sqlite_url, [report]) as engine:
        handle = await engine.start(report)
        with pytest.raises(StepFailed):
            await handle.result(10)
        await handle.retry()
        await handle.result(10)
    assert seen == [None, None]


# Processes


async def test_a_step_runs_in_a_process_of_its_own_which_serves_many(sqlite_url):
    @workflow(name="pids")
    async def pids(ctx: Context) -> list[int]:
        return [await ctx.step(pid_of_step), await ctx.step(pid_of_step)]

    async with Engine.open(sqlite_url, [pids], limits=Limits(step_processes=1)) as engine:
        first, second = await (await engine.start(pids)).result(20)
    assert first == second != os.getpid()
    assert not is_alive(first)


async def test_errors_of_a_process_are_as_if_raised_here(sqlite_url):
    @workflow(name="errors")
    async def errors(ctx: Context) -> list[str]:
        found = []
        try:
            await ctx.step(overdraws, 3)
        except Overdrawn as error:
            found.append(f"{error.missing} missing")
        try:
            await ctx.step(divides, 0)
        except StepFailed as error:
            found += [error.error.type, error.error.stack]
        try:
            await ctx.step(returns_a_lock)
        except StepFailed as error:
            found.append(error.error.message)
        return found

    async with Engine.open(sqlite_url, [errors]) as engine:
        missing, kind, stack, unpicklable = await (await engine.start(errors)).result(20)
    assert (missing, kind) == ("3 missing", "ZeroDivisionError")
    assert "return 1 / number" in stack
    assert "pickle" in unpicklable


async def test_what_a_process_logs_is_kept_with_the_run(sqlite_url):
    @workflow(name="saying")
    async def saying(ctx: Context) -> None:
        await ctx.step(says_where_it_is, 7)

    async with Engine.open(sqlite_url, [saying]) as engine:
        handle = await engine.start(saying)
        await handle.result(20)
        await engine.residence.logs.settle()
        (line,) = (await engine.database.read(queries.list_logs, handle.id)).items
    assert (line.logger, line.level, line.operation, line.attempt) == ("copier", "warning", "1", 1)
    assert line.message == "at row 7, password=[hidden]"


SCRIPT = """
import asyncio, os, sys, time
from dataclasses import dataclass
from lib_workflows import Context, Engine, current_step, step, workflow

@dataclass
class Rows:
    first: int
    last: int

@step(process=True)
def copy(rows: Rows) -> Rows:
    first = current_step().last_progress or rows.first
    for row in range(first, rows.last):
        current_step().heartbeat(row)
        if row == rows.first:
            print("copying in", os.getpid(), flush=True)
        time.sleep(0.01 if first == rows.first else 0)
    return Rows(first, rows.last)

@workflow(name="copying")
async def copying(ctx: Context, rows: Rows) -> Rows:
    return await ctx.step(copy, rows)

async def main():
    async with Engine.open(sys.argv[1], [copying]) as engine:
        handle = await engine.start(copying, Rows(1, 1_000), id="copy")
        print(await handle.result(60))

if __name__ == "__main__":
    asyncio.run(main())
"""


async def test_a_script_that_is_killed_takes_its_processes_with_it_and_goes_on_from_the_last_heartbeat(
    tmp_path, sqlite_url
):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    async def begin():
        return await asyncio.create_subprocess_exec(sys.executable, script, sqlite_url, stdout=subprocess.PIPE)

    process = await begin()
    try:
        told = await asyncio.wait_for(process.stdout.readline(), 20)
        kept = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))
        past_the_first = "SELECT 1 FROM heartbeats WHERE progress > 1"
        await wait_until(lambda: asyncio.sleep(0, kept.execute(past_the_first).fetchone()), timeout=20)
        kept.close()
    finally:
        process.kill()
        await process.wait()
    child = int(told.removeprefix(b"copying in "))
    await wait_until(lambda: asyncio.sleep(0, not is_alive(child)))
    output, _ = await asyncio.wait_for((await begin()).communicate(), 30)
    assert output.startswith(b"Rows(first=")
    assert output.rstrip().endswith(b", last=1000)")
    assert not output.startswith(b"Rows(first=1,")


async def test_a_process_that_dies_is_a_failed_attempt(sqlite_url):
    async with Engine.open(sqlite_url, [alone := running_alone(dies_at_first)]) as engine:
        assert await (await engine.start(alone)).result(20) == "lived"


async def test_a_result_that_cannot_be_pickled_is_the_steps_failure_and_ends_no_process(sqlite_url):
    async with Engine.open(sqlite_url, [alone := running_alone(gives_what_cannot_be_pickled)]) as engine:
        with pytest.raises(StepFailed, match="ValueError: not to be copied"):
            await (await engine.start(alone)).result(20)


async def test_what_a_step_says_last_in_its_process_is_not_heard_for_the_next_one(sqlite_url):
    """The parent refuses its heartbeat, and the step goes on all the same."""

    @workflow(name="says")
    async def saying(ctx: Context) -> str:
        return await ctx.step(says, "mine")

    flows = [alone := running_alone(beats_something_odd), saying]
    async with Engine.open(sqlite_url, flows, limits=Limits(step_processes=1)) as engine:
        with pytest.raises(StepFailed, match="progress"):
            await (await engine.start(alone)).result(20)
        assert await (await engine.start(saying)).result(20) == "mine"


async def test_cancelling_a_run_kills_the_process_of_its_step(sqlite_url):
    pids = []

    def hear(run_id, fraction, text, detail):
        pids.append(detail["progress"])

    async with Engine.open(sqlite_url, [alone := running_alone(never_ends)], on_progress=hear) as engine:
        handle = await engine.start(alone)
        await wait_until(lambda: asyncio.sleep(0, bool(pids)), timeout=20)
        await handle.cancel()
        with pytest.raises(Exception, match="cancelled"):
            await handle.result(10)
        await wait_until(lambda: asyncio.sleep(0, not is_alive(pids[0])))


async def test_a_timeout_kills_the_process_and_others_go_on(sqlite_url):
    options = StepOptions(process=True, timeout=timedelta(milliseconds=100))
    stuck = Step(never_ends.function, name="stuck", options=options)

    @workflow(name="both")
    async def both(ctx: Context) -> list[str]:
        async def first() -> str:
            try:
                await ctx.step(stuck)
            except StepFailed as error:
                return error.error.type
            return ""

        async def second() -> str:
            return str(await ctx.step(divides, 2))

        return await ctx.gather(first(), second())

    async with Engine.open(sqlite_url, [both], limits=Limits(step_processes=1)) as engine:
        assert await (await engine.start(both)).result(20) == ["StepTimeout", "0.5"]


async def test_a_step_that_goes_on_although_it_is_stopped_is_told_of_in_the_log_of_its_run(sqlite_url, monkeypatch):
    monkeypatch.setattr(attempt, "STUBBORN_SECONDS", 0.01)
    ends = asyncio.Event()

    @step(timeout=timedelta(milliseconds=1))
    async def stubborn() -> str:
        while not ends.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await ends.wait()
        return "at last"

    @workflow(name="waits-for-the-stubborn")
    async def waits_for_the_stubborn(ctx: Context) -> None:
        await ctx.step(stubborn)

    async def told(engine, run_id):
        page = await engine.database.read(queries.list_logs, run_id)
        return [(line.message, line.operation) for line in page.items]

    async with Engine.open(sqlite_url, [waits_for_the_stubborn]) as engine:
        handle = await engine.start(waits_for_the_stubborn)
        ((message, operation),) = await wait_until(lambda: told(engine, handle.id))
        assert message.startswith(f"step stubborn of run {handle.id} must end when it is stopped")
        assert operation == "1"
        ends.set()
        with pytest.raises(StepFailed, match="stubborn"):
            await handle.result(10)


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# Bad options


async def a_coroutine() -> None: ...


def test_options_that_cannot_be_are_refused(subtests):
    async def is_async() -> None: ...
    def is_sync() -> None: ...

    for function, options, told in (
        (is_sync, {"retries": -1}, "retries of step is_sync must be a whole number, 0 or more, got -1"),
        (is_sync, {"timeout": timedelta(0)}, "timeout of step is_sync must be positive"),
        (is_sync, {"heartbeat_timeout": timedelta(-1)}, "heartbeat_timeout of step is_sync must be positive"),
        (is_sync, {"process": True}, "must be at the top of its module to run in a process, got .*<locals>.is_sync"),
        (a_coroutine, {"process": True}, "must be a def to run in a process"),
        (is_async, {"start_timeout": MOMENT}, "must be a def to have a start_timeout"),
    ):
        with subtests.test(told=told), pytest.raises(DefinitionError, match=told):
            step(**options)(function)


done: list[str] = []


class Greets:
    async def __call__(self, greeting: str, name: str) -> str:
        done.append(name)
        return f"{greeting} {name}"


def gives_no_type(name: str) -> "Nothing":  # noqa: F821 - that nobody knows it is what is tested
    done.append(name)


def gives_what_nobody_can_describe(name: str) -> range:
    done.append(name)
    return range(3)


async def test_parts_of_functions_and_objects_that_are_called_are_steps(sqlite_url):
    steps = [step(name="part")(functools.partial(Greets(), "hi")), step(name="object")(Greets())]

    @workflow(name="greets")
    async def greets(ctx: Context) -> list[str]:
        return [await ctx.step(steps[0], "ada"), await ctx.step(steps[1], "hello", "ada")]

    async with Engine.open(sqlite_url, [greets]) as engine:
        assert await (await engine.start(greets)).result(10) == ["hi ada", "hello ada"]


@pytest.mark.parametrize("function", [gives_no_type, gives_what_nobody_can_describe])
async def test_a_step_whose_result_could_not_be_kept_fails_before_it_has_its_effect(sqlite_url, function):
    done.clear()
    bad = step(function)

    @workflow(name="bad")
    async def bad_flow(ctx: Context) -> None:
        await ctx.step(bad, "ada")

    async with Engine.open(sqlite_url, [bad_flow]) as engine:
        with pytest.raises(StepFailed, match="DefinitionError"):
            await (await engine.start(bad_flow)).result(10)
    assert done == []
