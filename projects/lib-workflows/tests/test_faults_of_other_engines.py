"""The faults that users of other engines report most, each with the test that shows it is not one of ours.

`FAULTS` names issue, fault and test; those without a file are below.
"""

import ast
import asyncio
import contextlib
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from flows import address_changed, doubling, forever
from sqlalchemy import func, select
from worker_process import WORKFLOWS, counted, go, held, long, make_counted

from lib_events.database import UNAVAILABLE
from lib_events.parent_watch import supervised
from lib_events.tables import events
from lib_events.testing import wait_until
from lib_workflows import Context, Engine, StepFailed, step, workflow
from lib_workflows.reading import queries
from lib_workflows.runs.commands import wake_all
from lib_workflows.runs.record import load, load_new
from lib_workflows.tables import runs, workers
from lib_workflows.workers.limits import Limits

HERE = Path(__file__).parent
LEASE_SECONDS = 0.5


class Fault(NamedTuple):
    """What users of an engine report, and our test."""

    engine: str
    issues: str
    fault: str
    test: str


# fmt: off
FAULTS = (
    Fault("DBOS", "716", "work stays PENDING: PostgreSQL restarts during recovery",
          "test_postgresql_killed_in_the_middle_of_recovery_strands_nobody"),
    Fault("DBOS", "804 805 742", "a rolling restart strands work",
          "test_a_rolling_restart_with_a_new_version_strands_nobody"),
    Fault("DBOS", "716", "a start whose commit nobody heard of",
          "test_unheard_commits.py::test_a_run_whose_start_nobody_heard_of_is_run_all_the_same"),
    Fault("DBOS", "702", "an upgrade strands runs of the old code",
          "test_workers.py::test_changed_code_is_parked_with_a_diff_and_goes_on_when_it_fits_again"),
    Fault("DBOS", "702", "runs that nobody can run are silent",
          "test_watching.py::test_runs_that_nobody_can_run_are_told_of_once"),
    Fault("DBOS", "485 111", "pickle as the format of payloads",
          "test_payloads.py::test_everything_that_is_stored_is_json"),
    Fault("DBOS", "485 111", "pickle as the format of payloads",
          "test_payloads.py::test_objects_that_are_no_data_are_refused_wherever_they_are_given"),
    Fault("Hatchet", "4494", "a task dropped at assignment, its slot never free again",
          "test_a_worker_that_dies_between_claim_and_run_leaves_nothing_held"),
    Fault("Hatchet", "4494", "slots of a queue that leak",
          "test_queues.py::test_slots_outlive_crashes_and_come_back_with_the_end"),
    Fault("Hatchet", "4494", "a claim that nobody heard of",
          "test_unheard_commits.py::test_runs_whose_claim_nobody_heard_of_are_run_all_the_same"),
    Fault("Hatchet", "2538 3790", "an idle engine keeps its database busy",
          "test_idle_load.py::test_an_idle_engine_asks_its_database_little"),
    Fault("Hatchet", "2573", "runs that are RUNNING and cannot be cancelled",
          "test_engine.py::test_a_cancellation_reaches_steps_and_children"),
    Fault("Hatchet", "4254 2432 1796", "zombie workers: heartbeats fine, nothing is done",
          "test_a_worker_with_a_blocked_loop_is_not_taken_for_dead_and_others_work"),
    Fault("Hatchet", "4803", "steps starve the engine of threads",
          "test_steps.py::test_a_step_that_finds_no_thread_in_time_never_begins"),
    Fault("Hatchet", "4349", "a crash while a run waits",
          "test_workers.py::test_a_killed_process_loses_nothing"),
    Fault("Celery", "8030 8091 10205", "a worker silently stops after it reconnected",
          "test_a_worker_goes_on_taking_runs_after_its_database_was_killed"),
    Fault("Celery", "8030 8091 10205", "connections that died while idle",
          "test_failures.py::test_connections_that_died_while_idle_fail_no_run"),
    Fault("Celery", "5935 3270 2599", "tasks that are long are executed repeatedly",
          "test_a_step_longer_than_the_lease_runs_once"),
    Fault("Celery", "9882", "tasks with an ETA are executed repeatedly",
          "test_engine.py::test_a_delayed_run_begins_when_its_time_has_come"),
    Fault("Celery", "4843 8521", "memory grows",
          "test_memory.py::test_runs_that_ended_or_left_are_not_kept_by_their_timers"),
    Fault("Celery", "4207 5060", "the body of a chord never runs",
          "test_fan_in.py::test_a_fan_in_comes_however_its_children_end"),
    Fault("Celery", "4207 5060", "a chord whose process died",
          "test_failures.py::test_a_crash_before_the_parent_was_woken_leaves_no_parent_behind"),
    Fault("FastStream", "1603", "retries without an end",
          "test_engine.py::test_a_step_is_retried_then_fails_for_good"),
    Fault("Prefect", "10188 19771 23051", "database is locked",
          "test_locked_database.py::test_a_lock_of_another_program_costs_no_run"),
    Fault("Prefect", "10188 19771 23051", "database is locked",
          "test_locked_database.py::test_a_second_engine_on_a_file_is_refused_and_the_first_goes_on"),
    Fault("Prefect", "21022 18404 16429 18839", "zombie runs, and runs wrongly taken for crashed",
          "test_a_stopped_worker_that_goes_on_as_a_zombie_ends_nothing_twice"),
    Fault("Prefect", "8566 8251 17628", "concurrency slots that are never released",
          "test_a_cancelled_run_gives_back_the_thread_it_waits_for"),
    Fault("Prefect", "8566 8251 17628", "concurrency slots that are never released",
          "test_fan_in.py::test_a_branch_that_fails_or_is_cancelled_gives_back_its_place"),
    Fault("Prefect", "8566 8251 17628", "concurrency slots that are never released",
          "test_queues.py::test_the_slots_of_a_worker_that_is_gone_are_those_of_its_runs"),
    Fault("Temporal", "1050", "a detector of deadlocks that takes a busy CPU for one",
          "test_watching.py::test_a_step_that_blocks_the_loop_is_told_of_with_its_line"),
    Fault("Temporal", "784", "the cache of workflows grows",
          "test_places_in_memory_are_given_back"),
    Fault("Temporal", "701", "a payload that is too large",
          "test_payloads.py::test_payloads_that_are_too_large_are_refused_wherever_they_are_given"),
    Fault("Temporal Java", "1965", "the next attempt goes on from the first heartbeat, not from the last",
          "test_steps.py::test_the_next_attempt_goes_on_from_the_last_progress"),
    Fault("Celery", "4860", "an error that cannot be kept leaves its task pending for ever",
          "test_payloads.py::test_an_error_with_any_text_ends_its_run"),
    Fault("Celery", "5642", "a result that cannot be kept takes the worker with it",
          "test_payloads.py::test_objects_that_are_no_data_are_refused_wherever_they_are_given"),
    Fault("Taskiq", "587", "a result that cannot be kept is noticed after the work is done",
          "test_steps.py::test_a_step_whose_result_could_not_be_kept_fails_before_it_has_its_effect"),
    Fault("APScheduler", "3.6.2", "parts of coroutine functions are not awaited",
          "test_steps.py::test_parts_of_functions_and_objects_that_are_called_are_steps"),
    Fault("APScheduler", "980 1059", "clocks change: a cron without end, or a date that is none",
          "test_timing.py::test_in_every_zone_each_time_on_the_wall_is_due_once"),
    Fault("oban-py", "0.6.2", "a clock that is set back starts a time's run again",
          "test_schedules.py::test_a_clock_that_goes_back_fires_nothing_twice"),
    Fault("pg-boss", "557", "times that came while nobody was there are lost",
          "test_schedules.py::test_after_a_time_away_one_run_starts_not_a_storm"),
    Fault("Airflow", "18051 14205", "one schedule holds up all the others",
          "test_schedules.py::test_schedules_that_cannot_fire_do_not_hold_up_the_others"),
    Fault("Durable Functions", "67 676 387", "events that come while a run continues as new are lost",
          "test_long_lives.py::test_signals_that_come_meanwhile_are_kept"),
    Fault("Inngest", "1433", "an event that comes before its wait is registered is missed",
          "test_event_waits.py::test_an_event_that_came_a_moment_too_late_is_there_for_the_next_wait"),
    Fault("Inngest", "2263", "runs that wait do not count against the limit",
          "test_queues.py::test_slots_outlive_crashes_and_come_back_with_the_end"),
    Fault("GoodJob", "1769", "a text that is too long for its index",
          "test_payloads.py::test_what_is_waited_for_is_no_larger_than_it_can_be_found_by"),
    Fault("DBOS", "541", "two processes on one SQLite file run the same twice",
          "test_locked_database.py::test_a_second_engine_on_a_file_is_refused_and_the_first_goes_on"),
    Fault("DBOS", "759", "an id that is the empty text",
          "test_payloads.py::test_names_that_no_database_keeps_are_refused"),
    Fault("Dramatiq", "791", "an async task that raises TimeoutError never ends",
          "test_a_step_that_raises_a_timeout_of_its_own_fails_by_it"),
)
# fmt: on


def test_each_fault_names_a_test_that_exists():
    for fault in FAULTS:
        file, _, name = fault.test.rpartition("::")
        tree = ast.parse((HERE / (file or Path(__file__).name)).read_text())
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in names, fault


# Workers in processes of their own


@contextlib.contextmanager
def worker(url, *arguments):
    """A process that works, and has started the runs it was told to."""
    command = [sys.executable, HERE / "worker_process.py", url, str(LEASE_SECONDS), *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=supervised()
    ) as process:
        try:
            assert process.stdout.readline() == b"begun\n"
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()


def opened(url):
    return Engine.open(url, WORKFLOWS, lease_seconds=LEASE_SECONDS)


async def how_often_ended(engine, run_id):
    ended = events.c.type.in_(["evs.run.completed", "evs.run.failed", "evs.run.cancelled"])
    query = select(func.count()).where(ended, events.c.subject == run_id)
    return await engine.database.read(lambda connection: connection.scalar(query))


async def owner_of(engine, run_id):
    return await engine.database.read(lambda c: c.scalar(select(runs.c.owner).where(runs.c.id == run_id)))


# Stranded work


@pytest.mark.postgresql
async def test_postgresql_killed_in_the_middle_of_recovery_strands_nobody(killable_postgresql, monkeypatch):
    url = f"{killable_postgresql.url}&schema=recovery"
    names = [f"stranded-{number}" for number in range(12)]
    with worker(url, *names):
        pass  # killed, with all of them in memory
    async with opened(url) as engine:
        read, killed = engine.database.read, asyncio.Event()

        async def killing_read(function, *args):
            if function in (load, load_new) and not killed.is_set():
                killed.set()  # it has claimed them, and not loaded them yet
                await asyncio.to_thread(killable_postgresql.kill)
                await asyncio.to_thread(killable_postgresql.start)
            return await read(function, *args)

        engine.database.read = killing_read
        await engine.database.transact(wake_all, names)  # where all of them rested already, nobody would load them
        await wait_until(killed.is_set, timeout=30)
        for name in names:
            await until_done(lambda name=name: engine.handle(name).signal(go, "recovered"))
            assert await until_done(lambda name=name: engine.handle(name, held).result(20)) == "recovered"
            assert await engine.database.read(counted, name) == ["begun", "recovered"]


async def until_done(command):
    """A client asks again while the database is away."""

    async def asked():
        with contextlib.suppress(*UNAVAILABLE):
            return [await command()]

    return (await wait_until(asked, timeout=30))[0]


@pytest.mark.postgresql
async def test_a_worker_goes_on_taking_runs_after_its_database_was_killed(killable_postgresql):
    url = f"{killable_postgresql.url}&schema=killed"
    async with Engine.open(url, [doubling], lease_seconds=LEASE_SECONDS) as engine:
        assert await (await engine.start(doubling, 1)).result(10) == 2
        await asyncio.to_thread(killable_postgresql.kill)
        await asyncio.to_thread(killable_postgresql.start)
        async with Engine.open(url, [doubling], works=False) as client:
            for number in range(3):
                handle = await client.start(doubling, number)
                assert await handle.result(30) == 2 * number


@pytest.mark.postgresql
async def test_a_rolling_restart_with_a_new_version_strands_nobody(postgresql_url):
    @workflow(name="rolled", version=1)
    async def old(ctx: Context) -> str:
        return f"old {await ctx.wait_signal(address_changed)}"

    @workflow(name="rolled", version=2)
    async def new(ctx: Context) -> str:
        return f"new {await ctx.wait_signal(address_changed)}"

    first, second = (contextlib.AsyncExitStack() for _ in range(2))
    one = await first.enter_async_context(Engine.open(postgresql_url, [old]))
    handles = [await one.start(old, id=f"old-{number}") for number in range(6)]
    await second.enter_async_context(Engine.open(postgresql_url, [old]))
    await first.aclose()  # drained: the other one has them
    one = await first.enter_async_context(Engine.open(postgresql_url, [old, new]))
    handles += [await one.start(new, id=f"new-{number}") for number in range(6)]
    await second.aclose()
    async with Engine.open(postgresql_url, [old, new]) as two:
        for handle in handles:
            await two.handle(handle.id).signal(address_changed, "home")
        results = [await two.handle(handle.id).result(20) for handle in handles]
        assert results == ["old home"] * 6 + ["new home"] * 6
        await first.aclose()


# Leaked places


@pytest.mark.parametrize("fails", ["dies", "cannot load"])
async def test_a_worker_that_dies_between_claim_and_run_leaves_nothing_held(database_url, fails):
    async with Engine.open(database_url, [doubling], lease_seconds=LEASE_SECONDS) as engine:
        look, claimed = engine.database.look, asyncio.Event()

        async def never_loaded(function, *args):
            if function is load_new:
                claimed.set()
                if fails == "dies":
                    await asyncio.Event().wait()
                engine.database.look = look
                raise OSError("the connection was lost")
            return await look(function, *args)

        engine.database.look = never_loaded
        front = Engine(engine.database, engine.registry, works=False)
        async with front:
            handles = await front.start_many(doubling, range(5))
        await claimed.wait()
        if fails == "dies":
            await engine.abandon()
        else:
            assert [await handle.result(10) for handle in handles] == [0, 2, 4, 6, 8]
    async with Engine.open(database_url, [doubling], lease_seconds=LEASE_SECONDS) as engine:
        assert [await engine.handle(handle.id, doubling).result(10) for handle in handles] == [0, 2, 4, 6, 8]
        assert [await owner_of(engine, handle.id) for handle in handles] == [None] * 5


async def test_a_cancelled_run_gives_back_the_thread_it_waits_for(sqlite_url, tmp_path):
    began, go_on = tmp_path / "began", tmp_path / "go-on"

    @step
    def takes_the_thread(number: int) -> int:
        if number == 0:
            began.touch()
            while not go_on.exists():
                pass
        return number

    @workflow(name="takes-a-thread")
    async def takes_a_thread(ctx: Context, number: int) -> int:
        return await ctx.step(takes_the_thread, number)

    async with Engine.open(sqlite_url, [takes_a_thread], limits=Limits(step_threads=1)) as engine:
        holder = await engine.start(takes_a_thread, 0)
        await wait_until(began.exists)
        waiting = [await engine.start(takes_a_thread, number) for number in range(1, 5)]
        for handle in (holder, *waiting[:3]):
            await handle.cancel()
            await wait_until(lambda handle=handle: has_status(handle, "cancelled"))
        go_on.touch()
        assert await waiting[3].result(10) == 4
        assert await (await engine.start(takes_a_thread, 5)).result(10) == 5


async def has_status(handle, status):
    return await handle.status() == status


async def test_places_in_memory_are_given_back(database_url):
    async with Engine.open(database_url, [forever, doubling], limits=Limits(in_memory=3)) as engine:
        await engine.database.transact(make_counted)
        handles = await engine.start_many(doubling, range(60))
        assert [await handle.result(20) for handle in handles] == [2 * number for number in range(60)]
        assert not engine.residence.executors


@step(timeout=timedelta(seconds=30))
async def runs_out_of_its_own_time() -> None:
    async with asyncio.timeout(0):
        await asyncio.Event().wait()


@workflow(name="runs-out")
async def runs_out(ctx: Context) -> None:
    await ctx.step(runs_out_of_its_own_time)


async def test_a_step_that_raises_a_timeout_of_its_own_fails_by_it(sqlite_url):
    async with Engine.open(sqlite_url, [runs_out]) as engine:
        with pytest.raises(StepFailed) as caught:
            await (await engine.start(runs_out)).result(10)
        assert caught.value.error.type == "TimeoutError"


# Zombies


@pytest.mark.opened_elsewhere
@pytest.mark.postgresql
async def test_a_stopped_worker_that_goes_on_as_a_zombie_ends_nothing_twice(postgresql_url, tmp_path):
    finish = tmp_path / "finish"
    with worker(postgresql_url, "waits", f"long:{finish}") as zombie:
        async with opened(postgresql_url) as engine:
            await wait_until(Path(f"{finish}.begun").exists)
            before = await owner_of(engine, "waits")
            zombie.send_signal(signal.SIGSTOP)
            await wait_until(lambda: has_another_owner(engine, "waits", before))
            finish.touch()  # both the zombie's attempt and ours end now
            await engine.handle("waits").signal(go, "taken over")
            zombie.send_signal(signal.SIGCONT)
            assert await engine.handle("waits", held).result(20) == "taken over"
            assert await engine.handle("long", long).result(20) == "done"
            # It has noticed, and lives again as another worker.
            await wait_until(lambda: number_of_workers(engine, 2))
            assert await engine.database.read(counted, "waits") == ["begun", "taken over"]
            assert await engine.database.read(counted, "long") == ["begun", "done"]
            assert [await how_often_ended(engine, run_id) for run_id in ("waits", "long")] == [1, 1]
        zombie.kill()
        assert b"taken for dead" in zombie.stderr.read()


async def has_another_owner(engine, run_id, before):
    return await owner_of(engine, run_id) != before


async def number_of_workers(engine, number):
    return await engine.database.read(lambda c: c.scalar(select(func.count()).select_from(workers))) == number


@pytest.mark.opened_elsewhere
@pytest.mark.postgresql
async def test_a_worker_with_a_blocked_loop_is_not_taken_for_dead_and_others_work(postgresql_url, tmp_path):
    tries = tmp_path / "tries"
    with worker(postgresql_url, f"blocking:{tries}"):
        async with opened(postgresql_url) as engine:
            await wait_until(tries.exists)
            mine = await engine.start(held, id="mine")
            await mine.signal(go, "worked")
            assert await mine.result(10) == "worked"
            assert await engine.handle("blocking").result(20) == "blocked"
            assert tries.read_text() == "tried\n"
            assert await engine.database.read(counted, "blocking") == ["blocked"]


# Long steps


@pytest.mark.postgresql
async def test_a_step_longer_than_the_lease_runs_once(postgresql_url):
    began, go_on = [], asyncio.Event()

    @step
    async def takes_long() -> str:
        began.append(1)
        await go_on.wait()
        return "once"

    @workflow(name="takes-long")
    async def takes_long_too(ctx: Context) -> str:
        return await ctx.step(takes_long)

    def lease_of(connection, worker_id):
        return connection.scalar(select(workers.c.lease_until_at).where(workers.c.id == worker_id))

    async def lease_was_over_thrice(engine, first):
        return await engine.database.read(lease_of, engine._worker.id) > first + 3 * LEASE_SECONDS * 1e6

    options = {"lease_seconds": LEASE_SECONDS}
    async with (
        Engine.open(postgresql_url, [takes_long_too], **options) as one,
        Engine.open(postgresql_url, [takes_long_too], **options) as two,
    ):
        handle = await one.start(takes_long_too)
        first = await one.database.read(lease_of, one._worker.id)
        await wait_until(lambda: lease_was_over_thrice(one, first))
        go_on.set()
        assert await two.handle(handle.id).result(10) == "once"
        history = await one.database.read(queries.get_history, handle.id)
        assert (began, [row.attempt for row in history]) == ([1], [1])
