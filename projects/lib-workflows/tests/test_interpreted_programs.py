"""Programs by chance, played by the engine and said by an interpreter that knows nothing of it: both say the same.

Time skips, and no two things happen at once, so that there is one right answer: how the run ends, what each of its
steps and transactions did and undid, and in which order. It is the same however often the engine dies on the way.
"""

import asyncio
import contextlib
import itertools
import json
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from interpreter import PAUSE_SECONDS, interpret
from sqlalchemy import func, select
from storm import SIZE, chance_of

from lib_events.database import Connection
from lib_events.testing import wait_until
from lib_workflows import Context, Engine, NonRetryable, Signal, StepFailed, WaitTimeout, current_step, step, workflow
from lib_workflows.authoring.retry import Backoff
from lib_workflows.errors import CommandRefused
from lib_workflows.reading import queries
from lib_workflows.runs.state import ENDED
from lib_workflows.tables import attempts, event_waits, history, messages, runs
from lib_workflows.testing import Environment, SkippingClock, crashing_engine, environment
from lib_workflows.workers.limits import Limits

PROGRAMS = 4 * SIZE
CRASHES = 3  # of each
FORKS = 3
FAILURES = 10  # of one program, one after the other, at most
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
APART_SECONDS = 0.08  # at least, between two things that happen: the clock moves a little each time it is read
letter = Signal("letter", str)


class Unlucky(Exception):
    pass


class Done:
    """What steps did, in this process, and whether there is trouble."""

    def __init__(self):
        self.clear()

    def clear(self):
        self.acts, self.trouble = [], True  # of steps: run, what, kind, name, result, key

    def note(self, run, *act):
        self.acts.append((run, *act, current_step().idempotency_key))

    def once(self, run):
        """What they did for a run, in order: what was done again after a crash, by the same key, counts once."""
        first = {(act[0], act[1], act[2], key): act for name, *act, key in reversed(self.acts) if name == run}
        return [list(act) for act in reversed(first.values())]


done = Done()


@pytest.fixture(autouse=True)
def _nothing_done():
    done.clear()


def make_ledger(connection: Connection) -> None:
    columns = "number BIGINT, run TEXT, what TEXT, name TEXT, result TEXT"
    connection.execute(sa.text(f"CREATE TABLE IF NOT EXISTS ledger ({columns})"))


def _enter(connection: Connection, *values: str | None) -> None:
    names = ("number", "run", "what", "name", "result")
    number = connection.scalar(sa.text("SELECT count(*) FROM ledger"))
    row = dict(zip(names, (number, *values), strict=True))
    connection.execute(sa.text("INSERT INTO ledger VALUES (:number, :run, :what, :name, :result)"), row)


def enter(connection: Connection, run: str, name: str) -> str:
    _enter(connection, run, "do", name, name)
    return name


def withdraw(connection: Connection, entered: str | None, run: str, name: str) -> None:
    _enter(connection, run, "undo", name, entered)


def enter_and_refuse(connection: Connection, run: str, name: str) -> str:
    _enter(connection, run, "do", name, name)
    raise Unlucky(name)


@step(retries=2, errors=(Unlucky,), backoff=Backoff(initial=timedelta(seconds=PAUSE_SECONDS), jitter=0))
async def do(run: str, name: str, how: str) -> str:
    if how == "flaky" and current_step().attempt == 1:
        raise ConnectionError(name)
    if how == "declared" and done.trouble:
        raise Unlucky(name)
    done.note(run, "do", "step", name, name)
    if how == "fails" and done.trouble:
        raise NonRetryable(name)
    return name


async def undo(result: str | None, run: str, name: str, how: str) -> None:
    done.note(run, "undo", "step", name, result)


async def undo_child(result: object, given: list) -> None:
    parent, _, name = given[0].rpartition(">")
    done.note(parent, "undo", "child", name, result)


@workflow(name="interpreted")
async def play_lives(ctx: Context, given: list) -> object:
    """Do what the first of the lives says, then go on with the others."""
    run, (life, *others) = given
    value = await play(ctx, run, life)
    if others:
        await ctx.continue_as_new([run, others])
    return value


async def play(ctx: Context, run: str, program: list) -> object:  # noqa: C901, PLR0911, PLR0912 - a line for each word
    match program:
        case ["step", name, how]:
            return await ctx.step(do, run, name, how, undo=undo)
        case ["enter", name]:
            return await ctx.transaction(enter, run, name, undo=withdraw)
        case ["refuse", name]:
            return await ctx.transaction(enter_and_refuse, run, name, undo=withdraw)
        case ["sleep", seconds]:
            await ctx.sleep(seconds)
        case ["signal", seconds]:
            return await ctx.wait_signal(letter, timeout=seconds)
        case ["raise", name]:
            raise Unlucky(name)
        case ["then", *parts]:
            return [await play(ctx, run, part) for part in parts]
        case ["all", limit, *parts]:
            return await ctx.gather(*(play(ctx, run, part) for part in parts), limit=limit)
        case ["first", *parts]:
            return list(await ctx.race(*(play(ctx, run, part) for part in parts)))
        case ["get over", part]:
            try:
                return await play(ctx, run, part)
            except Exception as error:  # noqa: BLE001 - whatever it is
                return f"got over {word_of(error)}"
        case ["clean up", part, cleaning]:
            try:
                return await play(ctx, run, part)
            finally:
                await play(ctx, run, cleaning)
        case ["in time", seconds, part]:
            async with ctx.timeout(seconds):
                return await play(ctx, run, part)
        case ["child", name, lives]:
            return await ctx.child(play_lives, [f"{run}>{name}", lives], undo=undo_child)
    return None


def word_of(error):
    if isinstance(error, WaitTimeout):
        return "late"
    return error.error.message.rpartition(": ")[2] if isinstance(error, StepFailed) else error.args[0]


# Drawing programs


class Drawing:
    """A program by chance; a `plain` one does the same however long things take, once there is no trouble."""

    def __init__(self, chance, *, plain=False):
        self.chance, self.plain, self._numbers = chance, plain, itertools.count()

    def name(self):
        return f"n{next(self._numbers)}"

    def moment(self):
        return self.chance.randint(100, 500_000) / 1000

    def later(self, depth):
        """What a branch does first: it waits for a time of its own."""
        return ["then", ["sleep", self.moment()], self.program(depth)]

    def leaf(self):
        how = self.chance.choice(["well", "well", "well", "flaky", "declared", "fails"])
        leaves = [["step", self.name(), how]] * 5 + [["enter", self.name()]] * 3 + [["sleep", self.moment()]] * 2
        named = [[word, self.name()] for word in ("raise", "refuse")]
        leaves += [] if self.plain else [*named, *[["signal", self.moment()]] * 2]
        return self.chance.choice(leaves)

    def program(self, depth):  # noqa: PLR0911 - a line for each word
        if depth == 0 or self.chance.random() < 0.12:
            return self.leaf()
        inner, many = depth - 1, range(self.chance.randint(2, 4))
        words = ["then", "all", "child", "clean up"] * 2
        words += [] if self.plain else ["first", "in time", "get over"] * 2 + ["lives"]
        word = self.chance.choice(words)
        match word:
            case "then":
                return ["then", *(self.program(inner) for _ in many)]
            case "all":
                return ["all", self.chance.choice([None, None, 1, 2]), *(self.later(inner) for _ in many)]
            case "first":
                return ["first", *(self.later(inner) for _ in many)]
            case "child" | "lives":
                return ["child", self.name(), [self.later(inner) for _ in range(2 if word == "lives" else 1)]]
            case "clean up":
                return ["clean up", self.program(inner), self.later(0)]
        return ["in time", self.moment(), self.program(inner)] if word == "in time" else [word, self.program(inner)]

    def acts(self):
        """What people do meanwhile: moments, each with a signal or a cancellation."""
        signals = [[2 * self.moment(), "signal", f"s{n}"] for n in range(self.chance.randint(0, 3))]
        cancels = [[2 * self.moment(), "cancel"]] if self.chance.random() < 0.35 else []
        return sorted(signals + cancels)


def draw(chance, *, plain=False):
    """The lives of a program, and what people do meanwhile."""
    while True:
        drawing = Drawing(chance, plain=plain)
        lives = [drawing.later(chance.randint(1, 4))]
        if not plain and chance.random() < 0.2:
            lives.append(drawing.later(2))
        acts = [] if plain else drawing.acts()
        expected = interpret(lives, acts)
        moments = sorted({*expected.clock.moments, *(act[0] for act in acts)})
        if len(moments) > 2 and all(two - one > APART_SECONDS for one, two in itertools.pairwise(moments)):
            return lives, acts


# Playing them


class Playing:
    """A program, and how far people are with what they do; goes on after a crash."""

    def __init__(self, name, lives, acts, clock):
        self.name, self.lives, self.acts, self.clock = name, lives, acts, clock
        self.began_at, self.acted, self.is_acting = clock.micros(), 0, False

    async def __call__(self, env):
        engine = env.engine
        await engine.database.transact(make_ledger)
        handle = await engine.start(play_lives, [self.name, self.lives], id=self.name)
        await env.until_resting()
        for act in self.acts[self.acted :]:
            await self._act(env, handle, *act)
        return await until_ended(env, self.name)

    async def _act(self, env, handle, at, what, text=None):
        left = self.began_at + at * 1e6 - self.clock.micros()
        await env.skip(timedelta(microseconds=max(left, 0)))
        with contextlib.suppress(CommandRefused):  # the run has ended
            if what == "cancel":
                await handle.cancel()
            elif not (self.is_acting and await env.engine.database.read(has_come, text)):
                self.is_acting = True
                await handle.signal(letter, text)
        self.acted, self.is_acting = self.acted + 1, False
        await env.until_resting()


async def until_ended(env, run_id):
    """Let time pass until the run has ended; returns it."""
    await env.until_resting()
    while (run := await env.engine.database.read(queries.get_run, run_id)).status not in ENDED:
        await env.skip(timedelta(hours=2))
        await env.until_resting()
    return run


def has_come(connection, text):
    """Whether a signal was sent by a command of which nobody heard the end."""
    waits = select(func.count()).where(messages.c.payload == json.dumps(text))
    taken = select(func.count()).where(history.c.kind == "wait_signal", history.c.output == json.dumps(text))
    return connection.scalar(waits) + connection.scalar(taken) > 0


async def play_with_a_crash(url, name, lives, acts, **crash):
    """Returns how the run ended, and whether the first worker died."""
    clock = SkippingClock(BEGINNING)
    options = {"clock": clock, "lease_seconds": 0.3, "limits": crash.pop("limits", None)}
    playing = Playing(name, lives, acts, clock)
    async with crashing_engine(url, [play_lives], **options, **crash) as (engine, database):
        first = asyncio.ensure_future(playing(Environment(engine, clock)))
        dying = asyncio.ensure_future(database.crashed.wait())
        await asyncio.wait([first, dying], return_when=asyncio.FIRST_COMPLETED)
        dying.cancel()
        if not database.crashed.is_set():
            return await first, False
        first.cancel()
        await asyncio.wait([first])
    async with Engine.open(url, [play_lives], **options) as engine:
        await wait_until(lambda: nobody_else_has_runs(engine))
        return await playing(Environment(engine, clock)), True


async def nobody_else_has_runs(engine):
    held = select(func.count()).where(runs.c.owner.is_not(None), runs.c.owner != engine.residence.worker_id)
    return await engine.database.read(lambda c: c.scalar(held)) == 0


class Traces:
    """What is in the database of a run and its children."""

    def __init__(self, connection, name):
        ledger = sa.text("SELECT run, what, name, result FROM ledger ORDER BY number")
        self.entered = [tuple(row) for row in connection.execute(ledger) if is_of(row.run, name)]
        told = (history.c[column] for column in ("operation", "kind", "name", "status", "output"))
        rows = select(runs.c.input, *told).join(history, history.c.run == runs.c.id)
        rows = connection.execute(rows.order_by(runs.c.input, history.c.position))
        # Lives of a run differ in what is still to come.
        self.history = [tuple(row[1:]) for row in rows if is_of(json.loads(row.input)[0], name)]
        counts = [select(func.count()).select_from(table) for table in (attempts, event_waits)]
        counts.append(select(func.count()).where(runs.c.owner.is_not(None) | runs.c.ended_at.is_(None)))
        self.left = [connection.scalar(count) for count in counts]


def is_of(run, name):
    """Whether a run is the one of that name, or a child of it."""
    return run.partition(">")[0] == name


def check(expected, run, traces, case):
    """Whether the run came to what the interpreter says, and did just that, in that order."""
    wanted = expected.runs[run.id]
    assert run.status == wanted.status, case
    assert run.status != "completed" or run.output == wanted.value, case
    acts = [act for act in done.acts if is_of(act[0], run.id)]
    assert {act[0] for act in acts} <= {*expected.did}, case
    for name, did in expected.did.items():
        assert done.once(name) == [list(act) for act in did if act[1] != "enter"], (name, case)
        entered = [(act[0], *act[2:]) for act in did if act[1] == "enter"]
        assert [row[1:] for row in traces.entered if row[0] == name] == entered, (name, case)
    keys = {}
    for *act, _, key in acts:
        assert keys.setdefault(tuple(act), key) == key, case
    assert len(set(keys.values())) == len(keys), case
    assert traces.left == [0, 0, 0], case


async def play_and_check(url, name, lives, acts, **crash):
    """Returns the history of the run and its children."""
    run, _ = await play_with_a_crash(url, name, lives, acts, **crash)
    async with Engine.open(url, [play_lives], works=False) as engine:
        traces = await engine.database.read(Traces, name)
    check(interpret(lives, acts, name=name), run, traces, (name, lives, acts, crash))
    return traces.history


@pytest.mark.timeout(300)
async def test_the_engine_comes_to_what_an_interpreter_says_wherever_it_dies(database_url):
    chance = chance_of("interpreted programs")
    for number in range(PROGRAMS):
        lives, acts = draw(chance)
        whole = await play_and_check(database_url, f"whole-{number}", lives, acts, crash_at=None)
        for crash in crashes(chance):
            again = await play_and_check(database_url, f"again-{number}-{crash['crash_at']}", lives, acts, **crash)
            assert again == whole, (lives, acts, crash)


def crashes(chance):
    for at in chance.sample(range(1, 40), CRASHES):
        limits = Limits(idle_seconds=0.0) if chance.random() < 0.5 else None
        yield {"crash_at": at, "after": chance.random() < 0.5, "limits": limits}


@pytest.mark.timeout(300)
async def test_what_failed_comes_to_the_same_once_there_is_no_trouble_any_more_and_so_do_its_forks(database_url):
    chance = chance_of("interpreted programs that are retried")
    async with environment(database_url, [play_lives], start=BEGINNING) as env:
        for number in range(PROGRAMS):
            name, (lives, _) = f"retried-{number}", draw_one_that_fails(chance)
            done.trouble = True
            failed = await Playing(name, lives, [], env.clock)(env)
            assert failed.status == "failed", lives
            done.trouble = False
            expected = interpret(lives, name=name, trouble=False)
            await check_once(env, expected, await retried(env, name), lives)
            rows = await env.engine.database.read(queries.get_history, name)
            operations = [row.operation for row in rows if row.operation[0].isdigit()]
            for operation in chance.sample(operations, min(FORKS, len(operations))):
                forked = await env.engine.handle(name).fork(operation)
                run = await until_ended(env, forked.id)
                assert (run.status, run.output) == ("completed", expected.runs[name].value), (lives, operation)


async def retried(env, run_id):
    """Retry the run until it ends well: what failed in its cleanup comes first, then what it cleaned up after."""
    for _ in range(FAILURES):
        await env.engine.handle(run_id).retry()
        run = await until_ended(env, run_id)
        if run.status == "completed":
            break
    return run


def draw_one_that_fails(chance):
    while True:
        lives, acts = draw(chance, plain=True)
        if interpret(lives).runs["run"].status == "failed":
            return lives, acts


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
        parent, _, child = name.rpartition(">")
        undone = -stands[parent, "child", child]
        for _, kind, about, _ in did:
            assert stands[name, kind, about] == 1 + undone, (name, about, case)
