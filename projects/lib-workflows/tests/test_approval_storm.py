"""Several people decide at once while deadlines pass, runs are cancelled, workers are lost: each question ends once."""

import asyncio
import contextlib
from dataclasses import dataclass, field

from sqlalchemy import select
from storm import SIZE, ends_of, fleet, losing_workers, nothing_is_left, side_by_side

from lib_workflows import Context, Principal, Signal, WaitTimeout, workflow
from lib_workflows.errors import ApprovalDecided, CommandRefused
from lib_workflows.reading import queries
from lib_workflows.runs import commands
from lib_workflows.runs.lifecycle_events import (
    APPROVAL_DECIDED,
    APPROVAL_EXPIRED,
    RUN_CANCELLED,
    RUN_COMPLETED,
    RUN_FAILED,
)
from lib_workflows.tables import approvals
from lib_workflows.values.codec import decode_json

RUNS = 8 * SIZE
PEOPLE = [Principal(f"u{number}", name, ("manager",)) for number, name in enumerate(("anna", "ben", "cleo"))]

enough = Signal("enough", str)


@dataclass
class Questions:
    patience: float
    lives: int = 2
    found: list[list[str]] = field(default_factory=list)


@workflow(name="asks-upwards")
async def asks_upwards(ctx: Context, questions: Questions) -> list[list[str]]:
    """Ask somebody, and somebody else when nobody has decided in time, in three lives; some questions go unanswered."""

    async def ask(what: str) -> list[str]:
        for whom in ("manager", "boss"):
            name = f"{what} {whom} {questions.lives}"
            try:
                answer = await ctx.approval(name, text="Well?", to=f"role:{whom}", timeout=questions.patience)
            except WaitTimeout:
                continue
            return [name, answer.by, str(answer.approved)]
        return [f"{what} {{}} {questions.lives}", "nobody", ""]

    async def told() -> list[str]:
        return ["told", await ctx.wait_signal(enough), ""]

    _, first = await ctx.race(ask("first"), told(), ctx.child(takes_its_time))
    second, third = await ctx.gather(ask("this"), ask("that"))
    found = [*questions.found, first or ["child", "", ""], second, third]
    if questions.lives:
        await ctx.continue_as_new(Questions(questions.patience, questions.lives - 1, found))
    return found


@workflow(name="takes-its-time")
async def takes_its_time(ctx: Context) -> list[str]:
    await ctx.sleep(0.03)
    return []


class People:
    """They decide whatever is asked, all at once."""

    def __init__(self, made):
        self.made, self.done = made, False
        self.said = {}  # of each approval: who has decided it, and how

    async def decide(self, person):
        while not self.done:
            page = await self.made.read(lambda c: queries.list_approvals(c, statuses=["pending"], limit=200))
            for approval in page.items:
                if self.made.chance.random() < 0.5:
                    await self._say(person, approval.id, approved=self.made.chance.random() < 0.5)
            await self.made.pause(50)
            await asyncio.sleep(0)

    async def _say(self, person, approval_id, *, approved):
        try:
            await self.made.transact(lambda c: commands.decide(c, approval_id, approved=approved, by=person))
        except ApprovalDecided:
            return  # somebody was faster
        assert approval_id not in self.said
        self.said[approval_id] = (person.subject, str(approved))

    async def interfere(self, run_ids):
        for number, run_id in enumerate(run_ids):
            await self.made.pause(40)
            command = [(commands.cancel, run_id), (commands.send_signal, run_id, enough.name, '"enough"')][number % 2]
            with contextlib.suppress(CommandRefused):
                await self.made.transact(*command)


async def test_each_question_is_decided_once_or_runs_out_of_time(database_url):
    async with fleet(database_url, [asks_upwards, takes_its_time], "approvals") as made:
        run_ids = [f"asks-{number}" for number in range(RUNS)]
        for number, run_id in enumerate(run_ids):
            async with made.engine() as engine:
                await engine.start(asks_upwards, Questions((0.01, 0.03, 0.06, 0.2)[number % 4]), id=run_id)
        people = People(made)

        async def until_all_have_ended():
            try:
                return await made.until_ended(run_ids)
            finally:
                people.done = True

        async with losing_workers(made, 3 * SIZE):
            ending = asyncio.ensure_future(until_all_have_ended())
            await side_by_side(*(people.decide(person) for person in PEOPLE), people.interfere(run_ids[::3]))
        await check(made, people, await ending)
        await nothing_is_left(made)


async def check(made, people, ended):
    rows = await made.read(lambda c: c.execute(select(approvals)).all())
    by_name = {(row.run, row.name): row for row in rows}
    assert len(by_name) == len(rows)
    decided = {row.id: (row.decided_by, str(row.status == "approved")) for row in rows if row.status != "expired"}
    assert decided == people.said
    told = await ends_of(made, [APPROVAL_DECIDED.name, APPROVAL_EXPIRED.name])
    assert told == {row.id: 1 for row in rows}
    ends = await ends_of(made, [RUN_COMPLETED.name, RUN_CANCELLED.name, RUN_FAILED.name])
    assert {run_id: ends[run_id] for run_id in ended} == dict.fromkeys(ended, 1)
    for run in ended.values():
        assert run.status in {"completed", "cancelled"}, run
        for found in decode_json(run.output) if run.status == "completed" else []:
            was_told_right(run.id, found, by_name)


def was_told_right(run_id, found, by_name):
    """What the workflow was told of a question is what its approval says."""
    name, by, approved = found
    if by == "nobody":
        assert {by_name[run_id, name.format(whom)].status for whom in ("manager", "boss")} == {"expired"}, (
            run_id,
            name,
        )
    elif name not in {"told", "child"}:
        row = by_name[run_id, name]
        assert (row.decided_by, str(row.status == "approved")) == (by, approved)
