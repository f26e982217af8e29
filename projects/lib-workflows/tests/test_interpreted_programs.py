"""Programs by chance, played by the engine and said by an interpreter that knows nothing of it: both say the same.

Time skips, and no two things happen at once, so that there is one right answer, or a few: how each run ends, what each
of its steps and transactions did and undid, and in which order; what was told and asked, and how it was answered. It is
the same however often the engine dies on the way. On PostgreSQL, which takes four times as long, each run of the tests
plays another part of the programs.
"""

import asyncio
from collections import Counter
from datetime import UTC, datetime

import pytest
from crew import Crew
from drawn_programs import WAYS, draw_one_that_fails
from drawn_programs import draw as draw_program
from interpreter import interpret, interpretations
from played_programs import WORKFLOWS, Playing, Traces, done, each_under_one_key, is_of, story_of, told, until_ended
from sqlalchemy import func, select
from storm import LEASE_SECONDS, SIZE, bury, chance_of

from lib_events.testing import wait_until
from lib_workflows import Engine
from lib_workflows.reading import queries
from lib_workflows.tables import history, runs, updates
from lib_workflows.testing import Environment, SkippingClock, crashing_engine, environment
from lib_workflows.workers.limits import Limits

PROGRAMS = 3 * SIZE
CRASHES = 3  # of each
FORKS = 2  # of each, beside one from its beginning
FAILURES = 10  # of one program, one after the other, at most
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _nothing_done():
    done.clear()


async def play_with_a_crash(url, name, lives, acts, **crash):
    """Play a program; whoever comes after a worker that dies goes on with it."""
    clock = SkippingClock(BEGINNING)
    options = {"clock": clock, "lease_seconds": 0.3, "limits": crash.pop("limits", None)}
    playing = Playing(name, lives, acts, clock)
    async with crashing_engine(url, WORKFLOWS, **options, **crash) as (engine, database):
        if await plays_to_its_end(playing(Environment(engine, clock)), database):
            return
    async with Engine.open(url, WORKFLOWS, **options) as engine:
        await wait_until(lambda: nobody_else_has_runs(engine))
        await playing(Environment(engine, clock))


async def play_with_two(url, name, lives, acts, *, limits, at, how):
    """Play a program on two workers, of which one dies at its `at`-th commit, or is then taken for dead and lives."""
    clock = SkippingClock(BEGINNING)
    options = {"clock": clock, "lease_seconds": LEASE_SECONDS, "limits": limits}
    crash_at, playing = at if how == "dies" else None, Playing(name, lives, acts, clock)
    async with Engine.open(url, WORKFLOWS, **options) as stays:
        async with crashing_engine(url, WORKFLOWS, **options, crash_at=crash_at) as (engine, database):
            burying = asyncio.ensure_future(bury_at(at, database, engine) if how == "buried" else asyncio.sleep(0))
            if await plays_to_its_end(playing(Crew([engine, stays], clock)), database):
                burying.cancel()
                return
        await wait_until(lambda: nobody_else_has_runs(stays))
        await playing(Crew([stays], clock))


async def bury_at(at, database, engine):
    await wait_until(lambda: database.commits >= at)
    await database.inner.transact(bury, engine._worker)


async def plays_to_its_end(playing, database):
    """Play, unless the database crashes before the end."""
    playing, dying = asyncio.ensure_future(playing), asyncio.ensure_future(database.crashed.wait())
    await asyncio.wait([playing, dying], return_when=asyncio.FIRST_COMPLETED)
    dying.cancel()
    if not database.crashed.is_set():
        await playing
        return True
    playing.cancel()
    await asyncio.wait([playing])
    return False


async def nobody_else_has_runs(engine):
    held = select(func.count()).where(runs.c.owner.is_not(None), runs.c.owner != engine.residence.worker_id)
    return await engine.database.read(lambda c: c.scalar(held)) == 0


async def play_and_check(url, name, lives, acts, *, play=play_with_a_crash, **loss):
    """Returns the histories of the run and of those that it has started, if there is one way only that they may go."""
    ways = list(interpretations(lives, acts, name=name, most=WAYS))
    await play(url, name, lives, acts, **loss)
    async with Engine.open(url, WORKFLOWS, works=False) as engine:
        traces = await engine.database.read(Traces, name)
    check(ways, traces, (name, lives, acts, loss))
    return None if len(ways) > 1 or ways[0].log.is_crowded else traces.history


def check(ways, traces, case):
    """Whether the engine did what the interpreter says, and just that, in that order."""
    story, stories = traces.story(), [story_of(way) for way in ways]
    assert story == stories[0] or story in stories, case
    each_under_one_key(traces.name)


@pytest.mark.timeout(300)
async def test_the_engine_comes_to_what_an_interpreter_says_wherever_it_dies(database_url, draw):
    chance = chance_of("interpreted programs")
    programs = [(draw_program(chance), list(crashes(chance))) for _ in range(PROGRAMS)]
    for number in played(database_url, draw, PROGRAMS):
        (lives, acts), dying = programs[number]
        whole = await play_and_check(database_url, f"whole-{number}", lives, acts, crash_at=None)
        for crash in dying:
            again = await play_and_check(database_url, f"again-{number}-{crash['crash_at']}", lives, acts, **crash)
            assert again == whole, (lives, acts, crash)


def played(url, draw, programs):
    """The numbers of those that this run plays."""
    return range(programs) if url.startswith("sqlite") else draw.some(range(programs), SIZE)


def crashes(chance):
    for at in chance.sample(range(1, 40), CRASHES):
        limits = Limits(idle_seconds=0.0) if chance.random() < 0.5 else None
        yield {"crash_at": at, "after": chance.random() < 0.5, "limits": limits}


@pytest.mark.postgresql
@pytest.mark.timeout(300)
async def test_it_comes_to_the_same_on_two_workers_of_which_one_is_lost(postgresql_url, draw):
    chance = chance_of("interpreted programs on two workers")
    programs = [(draw_program(chance), list(losses(chance))) for _ in range(2 * SIZE)]
    for number in played(postgresql_url, draw, len(programs)):
        (lives, acts), losing = programs[number]
        for loss in losing:
            name = f"{number}-{loss['how']}"
            await play_and_check(postgresql_url, name, lives, acts, play=play_with_two, **loss)


def losses(chance):
    for how in ("dies", "buried"):
        limits = Limits(idle_seconds=0.0) if chance.random() < 0.5 else None
        yield {"at": chance.randrange(1, 30), "how": how, "limits": limits}


@pytest.mark.timeout(300)
async def test_what_failed_comes_to_the_same_once_there_is_no_trouble_any_more_and_so_do_its_forks(database_url, draw):
    async with environment(database_url, WORKFLOWS, start=BEGINNING) as env:
        for number in played(database_url, draw, PROGRAMS):
            chance = chance_of(f"interpreted programs that are retried {number}")
            await play_one_that_fails(env, f"retried-{number}", *draw_one_that_fails(chance), chance)


async def play_one_that_fails(env, name, lives, acts, chance):
    """Play a program that fails; retry and fork it, or fork it as it has failed."""
    done.trouble = True
    failed = await Playing(name, lives, acts, env.clock)(env)
    assert failed.status == "failed", lives
    done.trouble = False
    expected = interpret(lives, acts, name=name, trouble=False).runs[name]
    if chance.random() < 0.7:
        await check_once(env, expected.world, await retried(env, name), lives)
        check_views(await env.engine.database.read(queries.get_run, name), expected, lives)
    rows = await env.engine.database.read(queries.get_history, name)
    operations = [row.operation for row in rows if row.operation[0].isdigit()]
    for operation in [None, *chance.sample(operations, min(FORKS, len(operations)))]:
        forked = await env.engine.handle(name).fork(operation)
        await until_ended(env, name)
        run = await env.engine.database.read(queries.get_run, forked.id)
        assert (run.status, run.output) == ("completed", expected.value), (lives, operation)
        check_views(run, expected, lives)
    await env.engine.database.read(check_messages, name, lives)


def check_views(run, expected, case):
    assert run.views == expected.views, (run.views, expected.views, case)


def check_messages(connection, name, case):
    """Whether every update was answered, and each row that publishes has its event."""
    rows = select(runs.c.correlation_id, history.c.kind).join(history, history.c.run == runs.c.id)
    published = connection.execute(rows.where(runs.c.correlation_id == name, history.c.kind == "publish")).all()
    assert len(published) == sum(kind == "call" for kind, _ in told(connection, name)), case
    assert connection.scalar(select(func.count()).where(updates.c.status == "pending")) == 0, case


async def retried(env, run_id):
    """Retry the run until it ends well: what failed in its cleanup comes first, then what it cleaned up after."""
    for _ in range(FAILURES):
        await env.engine.handle(run_id).retry()
        await until_ended(env, run_id)
        run = await env.engine.database.read(queries.get_run, run_id)
        if run.status == "completed":
            break
    return run


async def check_once(env, expected, run, case):
    """Whether the run has ended well, and whatever it and its children did is done and not undone, but what belongs to
    children that it has undone."""
    assert (run.status, run.output) == ("completed", expected.runs[run.id].value), case
    traces = await env.engine.database.read(Traces, run.id)
    acts = {(*act[:4], act[-1]) for act in done.acts if is_of(act[0], run.id)}
    stands = Counter()
    for name, what, kind, about, _ in acts:
        stands[name, kind, about] += 1 if what == "do" else -1
    for name, what, about, _ in traces.entered:
        stands[name, "enter", about] += 1 if what == "do" else -1
    for name, did in expected.did.items():
        for _, kind, about, _ in did:
            assert stands[name, kind, about] == times_of(name, stands), (name, about, case)


def times_of(name, stands):
    """How often a run was started: anew with whoever has started it, and once more for each time it was undone."""
    parent, _, child = name.rpartition(">")
    return times_of(parent, stands) - stands[parent, "child", child] if parent else 1
