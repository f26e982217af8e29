"""A row that the database refuses: what was decided upon it is not saved either, and the run comes to it again."""

from datetime import timedelta

from lib_events.testing import wait_until
from lib_workflows import Context, Engine, step, workflow
from lib_workflows.statements import APPEND_HISTORY, UPDATE_RUN


@step
async def first() -> int:
    return 1


@workflow(name="goes-on")
async def goes_on(ctx: Context) -> int:
    number = await ctx.step(first)
    await ctx.sleep(timedelta(milliseconds=1))  # over while the step's row is on its way
    return number + 1


@workflow(name="child")
async def child(ctx: Context) -> str:
    return "the child's"


@workflow(name="parent")
async def parent(ctx: Context) -> str:
    return await ctx.child(child)


def refuse(engine, is_refused):
    """Have the database refuse rows that `is_refused` chooses; gives those it has refused."""
    write, refused = engine.database.write, []

    def write_or_refuse(*writes, **rest):
        chosen = [each for each in writes if is_refused(each)]
        refused.extend(chosen)
        return write(
            *(each._replace(row=(object(), *each.row[1:])) if each in chosen else each for each in writes), **rest
        )

    engine.database.write = write_or_refuse
    return refused


async def test_a_run_has_no_row_without_those_it_was_decided_upon(database_url):
    async with Engine.open(database_url, [goes_on]) as engine:
        refused = refuse(
            engine, lambda each: each.statement is APPEND_HISTORY and each.row.name == "first" and not refused
        )
        run = await engine.start(goes_on)
        assert await run.result(20) == 2
        assert len(refused) == 1


async def test_a_parent_does_not_go_on_from_the_end_of_a_child_that_was_not_saved(database_url):
    async with Engine.open(database_url, [parent, child]) as engine:
        goes = []
        refused = refuse(
            engine,
            lambda each: (
                each.statement is UPDATE_RUN and '"the child\'s"' in each.row and "family" not in each.row and not goes
            ),
        )
        run = await engine.start(parent, id="family")
        await wait_until(lambda: len(refused) == 2)  # it has come to its end again
        assert (await run.status()) in ("running", "waiting")
        goes.append(True)
        assert await run.result(20) == "the child's"
