"""Updates and signals among runs that begin again, end, are cancelled and lose their worker: each is told one thing."""

from dataclasses import dataclass, field

import sqlalchemy as sa
from storm import SIZE, fleet, losing_workers, nothing_is_left, side_by_side

from lib_events.database import Connection
from lib_workflows import Context, Signal, Update, WaitTimeout, workflow
from lib_workflows.errors import CommandRefused
from lib_workflows.runs import commands
from lib_workflows.runs.results import read_update
from lib_workflows.runs.state import TERMINAL
from lib_workflows.values.codec import decode_json

RUNS = 6 * SIZE
EACH = 8

add = Update("add", int, int)
note = Signal("note", int)


@dataclass
class Sum:
    patience: float
    total: int = 0
    notes: list[int] = field(default_factory=list)


def make_added(connection: Connection) -> None:
    connection.execute(sa.text("CREATE TABLE IF NOT EXISTS added (id TEXT)"))


def keep(connection: Connection, update_id: str) -> None:
    connection.execute(sa.text("INSERT INTO added (id) VALUES (:id)"), {"id": update_id})


@workflow(name="adds-up")
async def adds_up(ctx: Context, so_far: Sum) -> Sum:
    """Add what is asked for, refuse what is odd, note what is told, begin again after two of either."""

    async def take_update() -> None:
        call = await ctx.wait_update(add)
        if call.value % 2:
            await call.reject("it must be even")
            return
        await ctx.transaction(keep, call.id)
        so_far.total += call.value
        await call.reply(so_far.total)

    async def take_note() -> None:
        number = await ctx.wait_signal(note, timeout=so_far.patience)
        so_far.notes.append(number)

    for _ in range(2):
        try:
            await ctx.race(take_update(), take_note())
        except WaitTimeout:
            continue
        if so_far.notes and so_far.notes[-1] < 0:
            return so_far
    await ctx.continue_as_new(so_far)
    return so_far


class Sender:
    """Sends updates to a run and remembers what it was told of each, first and last."""

    def __init__(self, made, run_id):
        self.made, self.run_id = made, run_id
        self.sent, self.refused, self.told = [], [], {}

    async def send_updates(self):
        for number in range(EACH):
            update_id = f"{self.run_id}.{number}"
            try:
                await self.made.transact(
                    lambda c, number=number, update_id=update_id: commands.send_update(
                        c, self.run_id, add.name, str(number), update_id=update_id
                    )
                )
            except CommandRefused:
                self.refused.append(update_id)
            else:
                self.sent.append(update_id)
            await self.look()
            await self.made.pause()

    async def send_notes(self):
        for number in [*range(EACH), -1]:
            try:
                await self.made.transact(commands.send_signal, self.run_id, note.name, str(number))
            except CommandRefused:
                return
            await self.made.pause()

    async def cancel(self):
        await self.made.pause(400)
        try:
            await self.made.transact(commands.cancel, self.run_id)
        except CommandRefused:
            return

    async def look(self):
        for update_id in self.sent:
            found = (await self.made.read(read_update, update_id)).answer
            if found is not None:
                assert self.told.setdefault(update_id, found) == found


async def test_each_update_is_answered_once_or_rejected(database_url):
    async with fleet(database_url, [adds_up], "updates") as made:
        await made.transact(make_added)
        senders = [Sender(made, f"sum-{number}") for number in range(RUNS)]
        for number, sender in enumerate(senders):
            async with made.engine() as engine:
                patience = 0.005 if number % 2 else 3600.0
                await engine.start(adds_up, Sum(patience), id=sender.run_id)
        acting = [each.send_updates() for each in senders] + [each.send_notes() for each in senders]
        acting += [each.cancel() for each in senders[::3]]
        async with losing_workers(made, 3 * SIZE):
            await side_by_side(*acting)
        ended = await made.until_ended([each.run_id for each in senders])
        for sender in senders:
            await check(made, sender, ended[sender.run_id])
        await nothing_is_left(made)


async def check(made, sender, run):
    await sender.look()
    assert set(sender.told) == set(sender.sent)
    kept = await made.read(lambda c: c.scalars(sa.text("SELECT id FROM added")).all())
    answered = 0
    for update_id, (status, reply) in sender.told.items():
        number = int(update_id.rpartition(".")[2])
        if status == "completed":
            answered += number
            assert kept.count(update_id) == 1, update_id
            assert number % 2 == 0
        elif reply == "it must be even":
            assert number % 2 == 1
            assert kept.count(update_id) == 0, update_id
        else:
            assert run.status in TERMINAL, reply
            assert kept.count(update_id) <= 1
    assert not [update_id for update_id in sender.refused if update_id in kept]
    if run.status == "completed":
        found = decode_json(run.output)
        assert found["notes"] == [*range(EACH), -1]
        assert found["total"] >= answered
    else:
        assert run.status == "cancelled", run
