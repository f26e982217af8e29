"""Workflows for schedules, a clock to move, and what schedules have done."""

from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from sqlalchemy import select

from lib_events.clock import to_micros
from lib_events.event import Event
from lib_events.tables import events
from lib_events.testing import FakeClock, wait_until
from lib_workflows import Context, Cron, Engine, Every, Signal, workflow
from lib_workflows.reading import queries
from lib_workflows.reading.queries import RunFilter

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOURLY = Every(HOUR)
go_on = Signal("go-on", str)


@workflow(name="tick")
async def tick(ctx: Context, word: str = "tick") -> str:
    return word


@workflow(name="long")
async def long(ctx: Context) -> str:
    return await ctx.wait_signal(go_on)


@workflow(name="declared", schedule=Cron("0 6 * * *", "Europe/Berlin"))
async def declared(ctx: Context) -> str:
    return ctx.run.tags["scheduled_for"]


WORKFLOWS = [tick, long]


class Clock(FakeClock):
    """Goes forward, and back, as it is told."""

    def set(self, moment):
        self.advance(moment - datetime.fromtimestamp(self.micros() / 1e6, UTC))


@asynccontextmanager
async def engine_at(url, moment=START, workflows=WORKFLOWS):
    clock = Clock(to_micros(moment))
    async with Engine.open(url, workflows, clock=clock) as engine:
        yield engine, clock


def move(engine, clock, moment):
    """It is `moment`: what is due by now is looked for."""
    clock.set(moment)
    engine.residence.timers.fire_due()
    engine.residence.beside[0].wake()


async def run_ids(engine):
    found = await engine.database.read(queries.list_runs, RunFilter(), None, 200)
    return sorted(run.id for run in found.items)


async def has_runs(engine, *ids):
    async def look():
        return await run_ids(engine) == sorted(ids)

    await wait_until(look)


async def told(engine, noun="evs.schedule."):
    """The events about schedules, in order."""

    def read(connection):
        query = select(events.c.body).where(events.c.type.like(f"{noun}%")).order_by(events.c.sequence)
        return [Event.from_json(body) for body in connection.scalars(query)]

    return await engine.database.read(read)


async def skips(engine):
    return [
        (event.data["reason"], event.data["due_at"][11:16], (event.data["until"] or "")[11:16])
        for event in await told(engine, "evs.schedule.skipped")
    ]


def id_of(hour, name="s", day=1):
    return f"schedule~{name}~202601{day:02}T{hour:02}0000Z"


async def has_passed(engine, name, moment):
    return (await engine.schedules.get(name)).next_at > to_micros(moment)


async def has_fired(engine, count):
    return (await engine.schedules.get("s")).fired == count
