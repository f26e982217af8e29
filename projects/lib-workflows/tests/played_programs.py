"""Plays a program, which is data, on the engine, and says what it came to in the words of the interpreter."""

import contextlib
import json
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa
from interpreter import PAUSE_SECONDS, heard, said_by
from sqlalchemy import and_, case, func, select

from lib_events.database import Connection
from lib_events.event import Cause, Event
from lib_events.tables import events
from lib_workflows import (
    Context,
    EventType,
    NonRetryable,
    Principal,
    Signal,
    StepFailed,
    Update,
    WaitTimeout,
    current_step,
    step,
    workflow,
)
from lib_workflows.authoring.retry import Backoff
from lib_workflows.errors import ApprovalDecided, CommandRefused
from lib_workflows.reading import queries
from lib_workflows.runs import commands
from lib_workflows.runs.results import read_update
from lib_workflows.runs.state import ENDED
from lib_workflows.tables import approvals, attempts, event_waits, history, messages, runs, updates


@dataclass
class Facts:
    order: str
    side: str
    text: str


@dataclass
class Call(Facts):
    by: str
    lives: dict[str, list]


kinds = {kind: EventType(f"{kind}.heard", Facts) for kind in ("shop", "bank")}
Called = kinds["call"] = EventType("call.heard", Call)
letter, nudge = Signal("letter", str), Signal("nudge", str)
request = Update("request", str, str)
anna = Principal("anna")


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


def enter_and_tell(connection: Connection, run: str, name: str, news: list) -> str:
    _enter(connection, run, "do", name, name)
    connection.publish(*(event_of(kind, facts, run, connection.source) for kind, facts in news))
    return name


def withdraw_told(connection: Connection, entered: str | None, run: str, name: str, news: list) -> None:
    _enter(connection, run, "undo", name, entered)


def event_of(kind, facts, run, source):
    said, cause = said_by(run, facts), Cause(correlation_id=run.partition(">")[0])
    return Event.of(kinds[kind], Call(**said) if kind == "call" else Facts(**said), source=source, cause=cause)


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


@workflow(name="hears", on=Called)
async def hears(ctx: Context, call: Call) -> object:
    return await play_call(ctx, "hears", call)


@workflow(name="overhears", on=Called)
async def overhears(ctx: Context, call: Call) -> object:
    return await play_call(ctx, "overhears", call)


WORKFLOWS = [play_lives, hears, overhears]


async def play_call(ctx: Context, workflow: str, call: Call) -> object:
    """Do what an event says, if it says something for that workflow."""
    lives = call.lives.get(workflow)
    return await play(ctx, f"{call.by}>{call.text}+{workflow}", lives[0]) if lives else None


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
        case ["update", seconds, answer, pause]:
            return await answered(ctx, seconds, answer, pause)
        case ["ask", name, seconds]:
            decision = await ctx.approval(name, text=f"May {run}?", to="user:anna", timeout=seconds)
            return "approved" if decision.approved else "rejected"
        case ["publish", kind, facts]:
            await ctx.publish(kinds[kind], event_of(kind, facts, run, "/").data)
        case ["tell", name, news]:
            return await ctx.transaction(enter_and_tell, run, name, news, undo=withdraw_told)
        case ["event", kind, match, seconds]:
            return (await ctx.wait_event(kinds[kind], match, timeout=seconds)).text
        case ["hear", what, name]:
            return await hear(ctx, what, name)
        case ["show", name]:
            await ctx.set_view(name, name)
        case ["start", name, lives]:
            await ctx.start(play_lives, [f"{run}>{name}", lives])
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


async def hear(ctx: Context, what: str, name: str) -> str:
    """Wait for what people say as soon as they see that somebody waits."""
    match what:
        case "update":
            call = await ctx.wait_update(request)
            await call.reply(f"heard {call.value}")
            return call.value
        case "ask":
            decision = await ctx.approval(name, text="So?", to="user:anna")
            return "approved" if decision.approved else "rejected"
    return await ctx.wait_signal(letter if what == "letter" else nudge)


async def answered(ctx: Context, seconds: float, answer: str | None, pause: float) -> str:
    """Take an update, and answer it a while later, or never."""
    call = await ctx.wait_update(request, timeout=seconds)
    await ctx.sleep(pause)
    if answer is not None:
        answers = {"completed": call.reply, "rejected": call.reject}
        await answers[answer](f"{answer} {call.value}")
    return call.value


# Playing them


class Playing:
    """A program, and how far people are with what they do; goes on after a crash."""

    def __init__(self, name, lives, acts, clock):
        self.name, self.lives, self.acts, self.clock = name, lives, acts, clock
        self.began_at, self.acted, self.is_acting = clock.micros(), 0, False

    async def __call__(self, env):
        """Returns how the run ended."""
        await env.engine.database.transact(make_ledger)
        handle = await env.engine.start(play_lives, [self.name, self.lives], id=self.name)
        await env.until_resting()
        for act in self.acts[self.acted :]:
            await self._act(env, handle, *act)
        await until_ended(env, self.name)
        return await env.engine.database.read(queries.get_run, self.name)

    async def _act(self, env, handle, at, what, *about):
        left = self.began_at + at * 1e6 - self.clock.micros()
        await env.skip(timedelta(microseconds=max(left, 0)))
        with contextlib.suppress(CommandRefused, ApprovalDecided):  # the run has ended, nobody asks any more
            await getattr(self, f"_{what}")(env.engine.database, handle, *about)
        self.acted, self.is_acting = self.acted + 1, False
        await env.until_resting()

    async def _cancel(self, database, handle):
        await handle.cancel()

    async def _signal(self, database, handle, text):
        if not await self._has_come(database, has_come, text):
            await handle.signal(letter, text)

    async def _update(self, database, handle, text):
        about = {"update_id": f"{self.name} {text}"}  # sent once, however often
        payload = request.codec.encode(text)
        await database.transact(lambda c: commands.send_update(c, self.name, request.name, payload, **about))

    async def _publish(self, database, handle, kind, facts):
        if not await self._has_come(database, is_told, self.name, facts["text"]):
            event = event_of(kind, facts, self.name, "/people")
            await database.transact(lambda connection: connection.publish(event))

    async def _decide(self, database, handle, name, decision):
        asked = await database.read(asked_of, self.name, name)
        if asked is not None:
            approved = decision == "approved"
            await database.transact(lambda c: commands.decide(c, asked, approved=approved, by=anna))

    async def _has_come(self, database, asks, *about):
        """Whether somebody has done this before a crash, and not heard of it."""
        if self.is_acting:
            return await database.read(asks, *about)
        self.is_acting = True
        return False


async def until_ended(env, name):
    """Let time pass until the run of that name, and all that it has started, have ended; people say what is waited
    for."""
    await env.until_resting()
    while await env.engine.database.read(is_under_way, name):
        if not await env.engine.database.transact(say_what_is_waited_for, name):
            await env.skip(timedelta(hours=2))
        await env.until_resting()


def say_what_is_waited_for(connection, name):
    """Returns whether anybody waits for people."""
    rows = connection.execute(select(runs).where(runs.c.status.in_(["waiting", "cancelling"]))).all()
    waits = [(run.id, wait) for run in rows if is_of(name_of(run.input, run.workflow), name) for wait in waits_of(run)]
    for run_id, wait in waits:
        for number in range(wait["count"]):
            say(connection, run_id, wait, number)
    return len(waits) > 0


def waits_of(run):
    waits = json.loads(run.waiting_for or "[]")
    return [wait for wait in waits if wait["kind"] in ("wait_signal", "wait_update", "approval") and not wait["until"]]


def say(connection, run_id, wait, number):
    match wait["kind"], wait["name"]:
        case "wait_signal", "letter":
            text = f"l{had_letters(connection, run_id) + 1}"
            life = connection.scalar(select(runs.c.earlier_lives).where(runs.c.id == run_id))
            for _ in range(2):  # it comes once
                commands.send_signal(connection, run_id, letter.name, json.dumps(text), key=f"{text} of {life}")
        case "wait_signal", _:
            commands.send_signal(connection, run_id, nudge.name, '"nudge"')
        case "wait_update", _:
            sent = connection.scalar(select(func.count()).where(updates.c.run == run_id))
            commands.send_update(connection, run_id, request.name, '"update"', update_id=f"{run_id} {sent}")
        case _, question:
            asked = and_(approvals.c.run == run_id, approvals.c.name == question, approvals.c.status == "pending")
            approval = connection.scalar(select(approvals.c.id).where(asked).limit(1))
            commands.decide(connection, approval, approved=heard("ask", question) == "approved", by=anna)


def had_letters(connection, run_id):
    """How many letters this life of the run has taken, and not given back."""
    taken = and_(history.c.run == run_id, history.c.kind == "wait_signal", history.c.name == letter.name)
    return connection.scalar(select(func.count()).where(taken, history.c.voided == 0, history.c.status == "completed"))


def is_under_way(connection, name):
    found = connection.execute(select(runs.c.input).where(runs.c.status.not_in(ENDED)))
    return any(is_of(name_of(row.input), name) for row in found)


def has_come(connection, text):
    """Whether a signal was sent by a command of which nobody heard the end."""
    waits = select(func.count()).where(messages.c.payload == json.dumps(text))
    taken = select(func.count()).where(history.c.kind == "wait_signal", history.c.output == json.dumps(text))
    return connection.scalar(waits) + connection.scalar(taken) > 0


def is_told(connection, name, text):
    return text in [facts["text"] for _, facts in told(connection, name)]


def asked_of(connection, name, question):
    """The approval of that name that the run, or one that it has started, waits for."""
    of_runs = select(approvals.c.id, runs.c.input).join(runs, runs.c.id == approvals.c.run)
    rows = connection.execute(of_runs.where(approvals.c.name == question, approvals.c.status == "pending"))
    return next((row.id for row in rows if is_of(name_of(row.input), name)), None)


def told(connection, name):
    """The events of a program, in the order of the log."""
    mine = events.c.type.in_([kind.name for kind in kinds.values()]), events.c.correlation == name
    rows = connection.execute(select(events.c.type, events.c.body).where(*mine).order_by(events.c.last_position))
    return [(row.type.partition(".")[0], json.loads(row.body)["data"]) for row in rows]


def name_of(given, workflow=play_lives.name):
    """Of whom an input is."""
    said = json.loads(given)
    return f"{said['by']}>{said['text']}+{workflow}" if isinstance(said, dict) else said[0]


def has_nothing_to_do(given, workflow):
    """Whether a run was started by an event that says nothing for it."""
    said = json.loads(given)
    return isinstance(said, dict) and workflow not in said["lives"]


def is_of(run, name):
    """Whether a run is the one of that name, or one that it has started."""
    return run.partition(">")[0] == name


# What they came to


class Traces:
    """What is in the database of a run and of those that it has started."""

    def __init__(self, connection, name):
        self.connection, self.name = connection, name
        ends = self._of(runs, runs.c.status, runs.c.output, where=runs.c.status != "continued")
        self.ends = {run: end_of(*end) for run, *end in ends}
        ledger = sa.text("SELECT run, what, name, result FROM ledger ORDER BY number")
        self.entered = [tuple(row) for row in connection.execute(ledger) if is_of(row.run, name)]
        self.told = told(connection, name)
        asked = self._of(approvals, approvals.c.name, approvals.c.status)
        self.questions = {(run, question): status for run, question, status in asked}
        sent = connection.scalars(select(updates.c.id).where(updates.c.run == name))
        self.answers = {sent_as.partition(" ")[2]: answer_of(connection, sent_as) for sent_as in sent}
        # Lives of a run differ in what is still to come, and what a run starts has another id each time.
        output = case((history.c.kind != "start", history.c.output))
        columns = (history.c.operation, history.c.kind, history.c.name, history.c.status, output)
        order = (runs.c.input, runs.c.workflow, history.c.position)
        rows = [without(name, row[1:]) for row in self._of(history, *columns, order=order)]
        self.history = sorted(rows, key=stopped_child)
        counts = [select(func.count()).select_from(table) for table in (attempts, event_waits)]
        counts.append(select(func.count()).where(runs.c.owner.is_not(None) | runs.c.ended_at.is_(None)))
        self.left = [connection.scalar(count) for count in counts]

    def _of(self, table, *columns, where=None, order=()):
        """Rows of the program's runs, each with the name of the run."""
        source = runs if table is runs else runs.join(table, table.c.run == runs.c.id)
        query = select(runs.c.input, runs.c.workflow, *columns).select_from(source).order_by(*order)
        rows = self.connection.execute(query if where is None else query.where(where)).all()
        mine = [(name_of(*row[:2]), *row[2:]) for row in rows if not has_nothing_to_do(*row[:2])]
        return [row for row in mine if is_of(row[0], self.name)]

    def story(self):
        """What the engine did, so that it compares with what the interpreter says."""
        runs_of = sorted({*self.ends, *(act[0] for act in done.acts if is_of(act[0], self.name))})
        return {
            "ends": self.ends,
            "did": {run: done.once(run) for run in runs_of},
            "entered": {run: [[*row[1:]] for row in self.entered if row[0] == run] for run in runs_of},
            "told": self.told,
            "questions": self.questions,
            "answers": self.answers,
            "left": self.left,
        }


def without(name, row):
    """The row as any program has it: an event that starts runs says of which one they are."""
    return tuple(text.replace(f'"{name}"', "") if isinstance(text, str) else text for text in row)


def stopped_child(row):
    """Children that are stopped together end in any order."""
    operation, kind, _, status, _ = row
    return operation if (kind, status) == ("child", "failed") else ""


def answer_of(connection, sent_as):
    """How an update was answered, and what with; None where it was not."""
    status, text = read_update(connection, sent_as).answer or (None, None)
    return (status, json.loads(text) if status == "completed" else text) if status else None


def end_of(status, output):
    return (status, json.loads(output) if status == "completed" else None)


def story_of(world):
    """What the interpreter says."""
    did = {run: [list(act) for act in acts] for run, acts in world.did.items()}
    return {
        "ends": {
            name: (run.status, run.value if run.status == "completed" else None) for name, run in world.runs.items()
        },
        "did": {run: [act for act in acts if act[1] != "enter"] for run, acts in did.items()},
        "entered": {run: [[act[0], *act[2:]] for act in acts if act[1] == "enter"] for run, acts in did.items()},
        "told": [(event.kind, event.facts) for event in world.log.events],
        "questions": {asked: question.status for asked, question in world.questions.items()},
        "answers": world.answers,
        "left": [0, 0, 0],
    }


def each_under_one_key(name):
    """Whether what was done again was done under the same key, and nothing else under that."""
    keys = {}
    for *act, _, key in done.acts:
        if is_of(act[0], name):
            assert keys.setdefault(tuple(act), key) == key, act
    assert len(set(keys.values())) == len(keys), keys
