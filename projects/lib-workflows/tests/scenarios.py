"""What people do to a run of the workflow that does everything; may be played twice, as after a crash."""

import contextlib

import flows
from flows import Order, address_changed, doubling, everything, forever

from lib_events.testing import wait_until
from lib_workflows import Principal
from lib_workflows.errors import ApprovalDecided, CommandRefused
from lib_workflows.reading import queries
from lib_workflows.runs import commands

WORKFLOWS = [doubling, everything, forever]
MANAGER = Principal("u1", "mia", ("manager",))


async def play_everything(engine, run_id="the-run", *, approved=True):
    await engine.database.transact(flows.make_stock)
    handle = await engine.start(everything, Order(id="o1", amount=7), id=run_id)
    run = await engine.database.read(queries.get_run, handle.id)
    if run.status not in ("completed", "failed"):
        await allow_for_the_end(handle.signal(address_changed, "Elm Street"))
        approval = await wait_until(lambda: asked(engine, handle.id))
        await allow_for_the_end(_decide(engine, approval, approved))
    try:
        return await handle.result(20)
    except flows.CardDeclined as error:
        return error.code


async def allow_for_the_end(command):
    with contextlib.suppress(CommandRefused, ApprovalDecided):  # it was done in the life before
        await command


async def _decide(engine, approval, approved):
    await engine.database.transact(lambda c: commands.decide(c, approval.id, approved=approved, by=MANAGER))


async def asked(engine, run_id):
    page = await engine.database.read(lambda c: queries.list_approvals(c, run=run_id))
    return page.items[0] if page.items else None
