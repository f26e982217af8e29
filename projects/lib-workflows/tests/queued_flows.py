"""Workflows in queues, and where their runs are."""

from pydantic import BaseModel
from sqlalchemy import select

from lib_events.testing import wait_until
from lib_workflows import Context, Signal, step, workflow
from lib_workflows.tables import runs

go_on = Signal("go-on", str)


@workflow(name="waits", queue="narrow")
async def waits(ctx: Context) -> str:
    return await ctx.wait_signal(go_on)


@step(retries=0)
async def fails(which: str) -> None:
    raise ValueError(which)


async def statuses(engine, handles):
    def look(connection):
        return dict(connection.execute(select(runs.c.id, runs.c.status)).all())

    found = await engine.database.read(look)
    return [found.get(handle.id) for handle in handles]


async def until(engine, handles, *wanted):
    found = []

    async def are():
        found[:] = await statuses(engine, handles)
        return found == list(wanted)

    try:
        await wait_until(are)
    except TimeoutError:
        assert found == list(wanted)


class Mail(BaseModel):
    to: str
    number: int
