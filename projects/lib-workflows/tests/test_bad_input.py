"""Numbers, durations and declarations that cannot be: each is refused where it is given, with what to do."""

from datetime import UTC, datetime, timedelta
from math import inf, nan

import pytest
from flows import OrderPlaced, charge, doubling
from sqlalchemy import text

from lib_events.database import DatabaseError, SchemaTooNew
from lib_workflows import Backoff, Context, DefinitionError, Engine, Principal, Signal, Update, step, workflow
from lib_workflows.errors import UnknownWorkflow
from lib_workflows.testing import environment
from lib_workflows.workers.limits import Limits

NO_NUMBERS = (-1, -0.001, nan, inf, -inf, 10**12, 10**400, timedelta(-1), timedelta.max, timedelta.min, "5", True)
NO_DURATIONS = (*NO_NUMBERS, None)
NEVER = timedelta(days=40_000)
anything = Signal("anything", str)
asked = Update("asked", str, str)


async def test_durations_that_no_timer_keeps_are_refused(sqlite_url, subtests):
    ctx = Context.__new__(Context)
    optional = {
        "timeout of ctx.wait_signal": lambda bad: ctx.wait_signal(anything, timeout=bad),
        "timeout of ctx.wait_update": lambda bad: ctx.wait_update(asked, timeout=bad),
        "timeout of ctx.approval": lambda bad: ctx.approval("a", text="?", to="role:x", timeout=bad),
    }
    always = {"ctx.sleep": ctx.sleep, "ctx.timeout": ctx.timeout}
    for bad in NO_DURATIONS:
        for what, use in always.items() if bad is None else (always | optional).items():
            with subtests.test(what=what, bad=repr(bad)[:20]), pytest.raises(DefinitionError, match=f"{what} must be"):
                use(bad)
    async with Engine.open(sqlite_url, [doubling]) as engine:
        handle = await engine.start(doubling, 1)
        used = {
            "delay": lambda bad: engine.start(doubling, 1, delay=bad),
            "timeout of result": lambda bad: handle.result(timeout=bad),
            "timeout of update": lambda bad: handle.update(asked, "x", timeout=bad),
        }
        for bad, (what, use) in ((bad, entry) for bad in NO_NUMBERS for entry in used.items()):
            with subtests.test(what=what, bad=repr(bad)[:20]), pytest.raises(DefinitionError, match=f"{what} must be"):
                await use(bad)


async def test_the_longest_and_the_shortest_wait_can_be_had(sqlite_url):
    @workflow(name="waits")
    async def waits(ctx: Context) -> float:
        begun_at = ctx.now()
        await ctx.sleep(0)
        await ctx.sleep(timedelta(days=36_500))
        return (ctx.now() - begun_at).days

    async with environment(sqlite_url, [waits], start=datetime(2026, 1, 1, tzinfo=UTC)) as env:
        assert await env.result(await env.engine.start(waits)) == 36_500


def test_options_of_steps_that_cannot_be_are_refused(subtests):
    def function() -> None: ...

    for options, told in (
        ({"timeout": timedelta.max}, "timeout of step function must be 0 s up to 100 years"),
        ({"timeout": 5}, "timeout of step function must be a timedelta, got 5"),
        ({"timeout": nan}, "timeout of step function must be a timedelta, got nan"),
        ({"total_timeout": timedelta(-1)}, "total_timeout of step function must be positive"),
        ({"start_timeout": NEVER}, "start_timeout of step function must be 0 s up to 100 years"),
        ({"heartbeat_timeout": timedelta(0)}, "heartbeat_timeout of step function must be positive"),
        ({"retries": -1}, "retries of step function must be a whole number, 0 or more, got -1"),
        ({"retries": 1.5}, "retries of step function must be a whole number, 0 or more, got 1.5"),
        ({"retries": nan}, "retries of step function must be a whole number, 0 or more, got nan"),
        ({"errors": ValueError}, r"errors of step function must be exception classes in a tuple, got <class 'ValueE"),
        ({"errors": ["ValueError"]}, "errors of step function must be exception classes in a tuple, got .'ValueError"),
        ({"errors": (KeyboardInterrupt,)}, "errors of step function must be exception classes in a tuple"),
        ({"backoff": timedelta(seconds=1)}, r"backoff of step function must be a Backoff\(…\), got datetime.timedelta"),
        ({"name": ""}, "name of a step must be a text"),
        ({"name": "a\0b"}, "name of a step must be a text"),
    ):
        with subtests.test(told=told), pytest.raises((DefinitionError, ValueError), match=told):
            step(**options)(function)


def test_options_of_workflows_that_cannot_be_are_refused(subtests):
    async def function(ctx: Context) -> None: ...

    for options, told in (
        ({"version": "2"}, "version of workflow w must be a whole number, 1 or more, got '2'"),
        ({"version": True}, "version of workflow w must be a whole number, 1 or more, got True"),
        ({"errors": ValueError}, "errors of workflow w must be exception classes in a tuple"),
        ({"on": "shop.order.placed"}, r"workflow w must start on an EventType\(…\), got 'shop.order.placed'"),
        ({"on": [OrderPlaced, dict]}, r"workflow w must start on an EventType\(…\), got <class 'dict'>"),
    ):
        with subtests.test(told=told), pytest.raises(DefinitionError, match=told):
            workflow(name="w", **options)(function)


def test_backoffs_that_cannot_be_are_refused(subtests):
    for options in (
        {"initial": timedelta(-1)},
        {"maximum": timedelta.max},
        {"initial": timedelta(hours=1), "maximum": timedelta(minutes=1)},
        {"factor": nan},
        {"factor": inf},
        {"factor": 0.5},
        {"factor": 1e6},
        {"jitter": nan},
        {"jitter": -0.1},
        {"jitter": 1.1},
    ):
        told = "backoff must have 0 <= initial"
        with subtests.test(options=str(options)), pytest.raises(DefinitionError, match=told):
            Backoff(**options)


def test_the_steepest_backoff_pauses_no_longer_than_its_maximum():
    steepest = Backoff(initial=timedelta(days=1), maximum=timedelta(days=36_500), factor=1_000, jitter=0)
    assert steepest.pause_seconds(10_000) == timedelta(days=36_500).total_seconds()


async def test_starts_that_cannot_be_are_refused(sqlite_url, subtests):
    async with Engine.open(sqlite_url, [doubling]) as engine:
        for options, told in (
            ({"deadline": datetime(2030, 1, 1)}, "deadline must be a datetime with a time zone"),  # noqa: DTZ001
            ({"deadline": 5}, "deadline must be a datetime with a time zone, got 5"),
            ({"priority": 10**12}, "priority must be a whole number, -1000000 to 1000000, got 1000000000000"),
            ({"priority": nan}, "priority must be a whole number, -1000000 to 1000000, got nan"),
            ({"priority": 1.5}, "priority must be a whole number, -1000000 to 1000000, got 1.5"),
            ({"on_conflict": "fails"}, "on_conflict must be one of same, existing, fail, got 'fails'"),
            ({"principal": "alice"}, r"principal must be a Principal\(…\), got 'alice'"),
            ({"principal": Principal(5)}, "subject of a principal must be a text of at most 16000 characters"),
            ({"principal": Principal("a\0b")}, "subject of a principal must be a text of at most 16000 characters"),
            ({"principal": Principal("a", 7)}, "username of a principal must be a text of at most 16000 characters"),
            ({"tags": [("team", "red")]}, r"tags must be a dictionary of texts, got \[\('team', 'red'\)\]"),
        ):
            with subtests.test(told=told), pytest.raises((DefinitionError, ValueError), match=told):
                await engine.start(doubling, 1, **options)


@workflow(name="starts-what-is-none", version=1)
async def starts_what_is_none(ctx: Context, child: bool) -> None:
    await (ctx.child(len) if child else ctx.start("doubling"))


async def test_what_is_no_workflow_cannot_be_started(sqlite_url, subtests):
    told = "what is started must be a function decorated with @workflow, got "
    async with Engine.open(sqlite_url, [starts_what_is_none]) as engine:
        for none in ("doubling", len):
            with subtests.test(none=none), pytest.raises(DefinitionError, match=told):
                await engine.start(none, 1)
        for child in (True, False):
            run = await engine.start(starts_what_is_none, child)
            with subtests.test(child=child), pytest.raises(DefinitionError, match=told):
                await run.result()


async def test_engines_that_cannot_be_are_refused(sqlite_url, subtests):
    for lease in (0, -1, nan, inf, 0.001, "20"):
        with subtests.test(lease=lease), pytest.raises(DefinitionError, match="lease_seconds must be"):
            async with Engine.open(sqlite_url, [doubling], lease_seconds=lease):
                pass
    for queues, told in (
        ("mail", "queues of a worker must be a set of names, got 'mail'"),
        (["a/b"], "name of a queue must have no slash"),
        (5, "queues of a worker must be a set of names, got 5"),
    ):
        with subtests.test(queues=queues), pytest.raises(DefinitionError, match=told):
            async with Engine.open(sqlite_url, [doubling], queues=queues):
                pass
    for workflows in ([doubling, len], [charge]):
        told = "workflows must be functions decorated with @workflow, got "
        with subtests.test(workflows=workflows), pytest.raises(DefinitionError, match=told):
            async with Engine.open(sqlite_url, workflows):
                pass
    for name, bad in (
        ("idle_seconds", nan),
        ("idle_seconds", -1),
        ("blocked_seconds", inf),
        ("in_memory", 0),
        ("step_threads", -1),
        ("step_processes", 0),
        ("step_threads", nan),
    ):
        with subtests.test(name=name, bad=bad), pytest.raises(DefinitionError, match=f"{name} must be"):
            Limits(**{name: bad})


@workflow(name="stranger")
async def stranger(ctx: Context, number: int) -> int:
    return number


@workflow(name="asks-a-stranger")
async def asks_a_stranger(ctx: Context, apart: bool) -> str:
    try:
        await (ctx.start(stranger, 1) if apart else ctx.child(stranger, 1))
    except UnknownWorkflow as error:
        return str(error)
    return "started"


async def test_a_workflow_that_nobody_could_ever_run_is_refused(sqlite_url, subtests):
    """Of a SQLite file there is one process. On PostgreSQL another worker may hold it: there an alarm tells."""
    told = "workflow must be one of asks-a-stranger, got stranger version 1; register it"
    async with Engine.open(sqlite_url, [asks_a_stranger]) as engine:
        with subtests.test("start"), pytest.raises(UnknownWorkflow, match=told):
            await engine.start(stranger, 1)
        with subtests.test("start of many"), pytest.raises(UnknownWorkflow, match=told):
            await engine.start_many(stranger, [1])
        for apart in (False, True):
            with subtests.test(apart=apart):
                assert await (await engine.start(asks_a_stranger, apart)).result(10) == told


async def test_a_database_of_a_newer_release_is_refused(database_url):
    async with Engine.open(database_url, [doubling]) as engine:
        newer = text("UPDATE alembic_version_lib_workflows SET version_num = '9999'")
        await engine.database.transact(lambda connection: connection.execute(newer))
    with pytest.raises(SchemaTooNew, match=r"lib_workflows tables must be at revision \d+ or older, got 9999; start"):
        async with Engine.open(database_url, [doubling]):
            pass


async def test_a_damaged_database_is_refused_at_the_start(sqlite_url, tmp_path, subtests):
    async with Engine.open(sqlite_url, [doubling]) as engine:
        for number in range(200):
            await engine.start(doubling, number, id=f"run-{number}")
    whole = (tmp_path / "test.db").read_bytes()
    for damage, content in {
        "no database": b"this is no database at all" * 1_000,
        "cut": whole[: len(whole) // 3],
        "overwritten": whole[:8192] + b"\xa5" * (len(whole) - 8192),
    }.items():
        (tmp_path / "test.db").write_bytes(content)
        with subtests.test(damage=damage), pytest.raises(DatabaseError, match="restore a backup"):
            async with Engine.open(sqlite_url, [doubling]):
                pass
