"""One run signals another, exactly once, wherever the process dies."""

import pytest
from flows import address_changed

from lib_workflows import Context, Engine, Signal, workflow
from lib_workflows.errors import CommandRefused, RunNotFound
from lib_workflows.reading import queries
from lib_workflows.testing import export_history, replay_history, survive

go = Signal("go", int)


@workflow(name="hears-two")
async def hears_two(ctx: Context) -> list[int]:
    return [await ctx.wait_signal(go), await ctx.wait_signal(go)]


@workflow(name="tells-two")
async def tells_two(ctx: Context, whom: str) -> str:
    for number in (1, 2):
        await ctx.signal(whom, go, number)
    return "told"


@workflow(name="tells-too-late")
async def tells_too_late(ctx: Context, whom: str) -> str:
    try:
        await ctx.signal("nobody", go, 1)
    except RunNotFound:
        try:
            await ctx.signal(whom, address_changed, "Elm Street")
        except CommandRefused as refused:
            return refused.status
    return "told"


@workflow(name="tells-itself")
async def tells_itself(ctx: Context) -> int:
    await ctx.signal(ctx.run_id, go, 7)
    return await ctx.wait_signal(go)


ALL = [hears_two, tells_two, tells_too_late, tells_itself]


async def play(engine: Engine) -> list[int]:
    hearing = await engine.start(hears_two, id="hearing")
    await engine.start(tells_two, "hearing", id="telling")
    heard = await hearing.result(20)
    assert await engine.handle("telling", tells_two).result(20) == "told"
    return heard


@pytest.mark.parametrize("after", [False, True])
async def test_each_signal_of_a_run_reaches_another_once_wherever_the_process_dies(sqlite_url, after, crash_places):
    for number in crash_places.of_about(9):
        url = sqlite_url.replace("test.db", f"{number}.db")
        heard, crashed = await survive(url, ALL, play, crash_at=number, after=after)
        assert heard == [1, 2]
        if not crashed:
            break
    assert number > 4


async def test_a_run_signals_others_and_itself_and_hears_of_those_that_are_gone(database_url):
    async with Engine.open(database_url, ALL) as engine:
        assert await play(engine) == [1, 2]
        assert await (await engine.start(tells_itself)).result(10) == 7
        late = await engine.start(tells_too_late, "hearing")
        assert await late.result(10) == "completed"
        history = await engine.database.read(queries.get_history, "telling")
        assert [(row.kind, row.name, row.input) for row in history] == [
            ("transaction", "signal_run", ["hearing", "go", str(number)]) for number in (1, 2)
        ]
        for flow, run_id in ((tells_two, "telling"), (tells_too_late, late.id)):
            assert replay_history(flow, await export_history(engine, run_id)) in ("told", "completed")
