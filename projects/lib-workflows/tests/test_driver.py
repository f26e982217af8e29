"""The driver alone: paths, gather, race, timeouts and the guard, without a database or an event loop."""

import asyncio
import contextlib

import pytest

from lib_workflows import Context, WaitTimeout, step
from lib_workflows.authoring.context import RunInfo
from lib_workflows.errors import Cancelled, Nondeterministic
from lib_workflows.execution.driver import Driver, Outcome
from lib_workflows.execution.history import replay
from lib_workflows.statements import HistoryRow


class Play:
    """Drives a workflow by hand."""

    run_info = staticmethod(lambda: RunInfo("run", "w", 1, "/test"))

    def __init__(self, function, *, begins=True):
        context = Context(self, lambda args: None)
        self.driver = Driver("run", lambda: function(context))
        if begins:
            self.driver.begin(0)

    def now_micros(self):
        return self.driver.now

    def random_bytes(self):
        return self.driver.random_bytes()

    def report_progress(self, fraction, text):
        pass

    @property
    def pending(self):
        return {path: p.operation.kind for path, p in self.driver.pending.items()}

    def end(self, path, value=None, error=None, **more):
        self.driver.deliver(path, Outcome(value, error, **more), self.driver.now + 1)
        return self

    @property
    def result(self):
        outcome = self.driver.outcome
        if outcome.error is not None:
            raise outcome.error
        return outcome.value


@step
async def work(number: int) -> int:
    return number


async def twice(ctx, number):
    return await ctx.step(work, await ctx.step(work, number))


def test_operations_are_named_by_their_branch():
    async def flow(ctx):
        await ctx.step(work, 1)
        return await ctx.gather(twice(ctx, 1), ctx.step(work, 2))

    play = Play(flow)
    assert play.pending == {"1": "step"}
    play.end("1")
    assert play.pending == {"2/1/1": "step", "2/2/1": "step"}
    play.end("2/2/1", "b").end("2/1/1", "x")
    assert play.pending == {"2/1/2": "step"}
    assert play.end("2/1/2", "a").result == ["a", "b"]


def test_gather_starts_no_more_than_its_limit():
    async def flow(ctx):
        return await ctx.gather(*(ctx.step(work, n) for n in range(4)), limit=2)

    play = Play(flow)
    assert list(play.pending) == ["1/1/1", "1/2/1"]
    play.end("1/2/1", 2)
    assert list(play.pending) == ["1/1/1", "1/3/1"]
    play.end("1/1/1", 1).end("1/3/1", 3)
    assert play.end("1/4/1", 4).result == [1, 2, 3, 4]


def test_a_race_gives_the_first_and_cancels_the_others():
    async def flow(ctx):
        return await ctx.race(ctx.sleep(5), twice(ctx, 1))

    play = Play(flow)
    play.end("1/2/1", 7).end("1/2/2", 8)
    assert play.pending == {"1/1/1": "sleep", "1": "race"}
    assert play.end("1", 1).result == (1, 8)
    assert [p.path for p in play.driver.withdrawn] == ["1/1/1"]


def test_a_failing_branch_waits_for_a_running_sibling():
    async def flow(ctx):
        await ctx.gather(ctx.step(work, 1), ctx.step(work, 2), ctx.sleep(9), limit=2)

    play = Play(flow)
    play.end("1/1/1", error=ValueError("no"))
    assert [p.path for p in play.driver.cancellations] == ["1/2/1"]
    assert play.driver.outcome is None
    with pytest.raises(ValueError, match="no"):
        _ = play.end("1/2/1", error=Cancelled()).result


def test_a_timeout_cancels_its_block_only():
    async def flow(ctx):
        try:
            async with ctx.timeout(1):
                await ctx.sleep(9)
        except WaitTimeout:
            return await ctx.step(work, 3)

    play = Play(flow)
    assert play.pending == {"1": "timeout", "2": "sleep"}
    play.end("1")
    assert play.pending == {"3": "step"}
    assert play.end("3", "late").result == "late"


def test_an_outer_timeout_passes_through_an_inner_one():
    async def flow(ctx):
        try:
            async with ctx.timeout(1), ctx.timeout(5):
                await ctx.sleep(9)
        except WaitTimeout as error:
            return error.what

    assert Play(flow).end("1").result == "the end of a block of 1.0 s"


async def block_with_a_step(ctx):
    try:
        async with ctx.timeout(1):
            await ctx.step(work, 1)
    except WaitTimeout:
        return await ctx.step(work, 2)


def test_a_cancelled_run_does_not_end_as_a_block_that_took_too_long():
    play = Play(block_with_a_step)
    play.driver.cancel("stop", 1)
    play.end("1")
    with pytest.raises(Cancelled, match="stop"):
        _ = play.end("2", error=Cancelled()).result


def test_a_cancellation_is_heard_by_a_block_whose_time_is_over_but_whose_step_still_stops():
    play = Play(block_with_a_step)
    play.end("1")
    play.driver.cancel("stop", 1)
    with pytest.raises(Cancelled, match="stop"):
        _ = play.end("2", error=Cancelled()).result


def test_an_outer_block_is_over_before_an_inner_one_that_was_late_first():
    async def flow(ctx):
        try:
            async with ctx.timeout(5):
                await block_with_a_step(ctx)
        except WaitTimeout as error:
            return error.what

    play = Play(flow)
    play.end("2").end("1")
    assert play.end("3", error=Cancelled()).result == "the end of a block of 5.0 s"


async def block_that_cleans_up(ctx):
    with contextlib.suppress(WaitTimeout):
        async with ctx.timeout(1):
            try:
                await ctx.sleep(9)
            finally:
                await ctx.sleep(5)
    return "went on"


def test_a_cancelled_run_does_not_go_on_because_the_time_of_a_block_is_over_while_it_cleans_up():
    play = Play(block_that_cleans_up)
    play.driver.cancel("stop", 1)
    assert play.pending == {"1": "timeout", "3": "sleep"}
    with pytest.raises(Cancelled, match="stop"):
        _ = play.end("1").result


def test_a_branch_that_is_stopped_does_not_go_on_because_the_time_of_its_block_is_over():
    async def flow(ctx):
        await ctx.gather(block_that_cleans_up(ctx), ctx.step(work, 1))

    play = Play(flow)
    play.end("1/2/1", error=ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        _ = play.end("1/1/1").result


def test_a_block_that_a_run_goes_on_in_after_its_cancellation_ends_as_cancelled_too():
    async def flow(ctx):
        async with ctx.timeout(1):
            with contextlib.suppress(Cancelled):
                await ctx.sleep(9)
            await ctx.sleep(9)

    play = Play(flow)
    play.driver.cancel("stop", 1)
    with pytest.raises(Cancelled, match="stop"):
        _ = play.end("1").result


def test_a_cancelled_run_reaches_into_a_gather_whose_branch_is_late():
    async def flow(ctx):
        await ctx.gather(block_with_a_step(ctx), ctx.sleep(9))

    play = Play(flow)
    play.end("1/1/1")
    play.driver.cancel("stop", 1)
    with pytest.raises(Cancelled, match="stop"):
        _ = play.end("1/1/2", error=Cancelled()).result


def test_cleanup_after_a_cancellation_may_still_run_operations():
    async def flow(ctx):
        try:
            await ctx.sleep(9)
        finally:
            await ctx.step(work, 1)

    play = Play(flow)
    play.driver.cancel("stop", 1)
    assert play.pending == {"2": "step"}
    with pytest.raises(Cancelled, match="stop"):
        _ = play.end("2").result


def test_chance_and_time_are_the_same_on_every_replay():
    async def flow(ctx):
        first = (ctx.random(), ctx.uuid(), ctx.now())
        await ctx.step(work, 1)
        return (*first, ctx.random(), ctx.uuid(), ctx.now())

    results = {Play(flow).end("1").result for _ in range(2)}
    assert len(results) == 1
    assert len(set(results.pop())) == 6


@pytest.mark.parametrize(
    ("wrong", "instead"),
    [
        (lambda: asyncio.sleep(1), "ctx.sleep"),
        (lambda: asyncio.sleep(0), "ctx.sleep"),
        (lambda: asyncio.timeout(1).__aenter__(), "ctx.timeout"),
        (lambda: asyncio.to_thread(print), "def step"),
    ],
)
def test_asyncio_is_refused_with_the_line_and_the_way_out(wrong, instead):
    async def flow(ctx):
        await wrong()

    with pytest.raises(Exception, match=rf"test_driver.py:\d+ in .*; use .*{instead}"):
        _ = Play(flow).result


def test_asyncio_tasks_are_refused():
    async def flow(ctx):
        asyncio.create_task(twice(ctx, 1))  # noqa: RUF006

    with pytest.raises(Exception, match=r"asyncio \(create_task\) at .*; use await ctx.gather"):
        _ = Play(flow).result


def test_a_task_of_an_operation_is_refused_like_one_of_a_coroutine():
    async def flow(ctx):
        asyncio.create_task(ctx.step(work, 1))  # noqa: RUF006

    with pytest.raises(Exception, match=r"asyncio \(create_task\) at .*; use await ctx.gather"):
        _ = Play(flow).result


def row(position, operation, kind, name):
    return HistoryRow("run", position, operation, kind, name, "completed", 1, 0, 0, output="1")


def test_replay_says_what_differs():
    async def flow(ctx):
        await ctx.step(work, 1)
        await ctx.sleep(1)

    play = Play(flow, begins=False)
    history = [row(1, "1", "step", "work"), row(2, "2", "step", "other")]
    with pytest.raises(Nondeterministic) as caught:
        replay(play.driver, history, run_id="run", begun_at=0, resumed=True)
    assert (caught.value.position, caught.value.expected, caught.value.found) == (
        2, "operation 2: step 'other' (completed)", "operation 2: sleep 'sleep'",
    )  # fmt: skip


def test_replay_notices_a_workflow_that_ended_too_early():
    async def flow(ctx):
        return None

    with pytest.raises(Nondeterministic, match="the function has already ended"):
        replay(Play(flow, begins=False).driver, [row(1, "1", "step", "work")], run_id="run", begun_at=0, resumed=True)


DEEPER = 3_000  # than Python's stack


async def nested(ctx, depth):
    return await ctx.gather(nested(ctx, depth - 1)) if depth else await ctx.step(work, 1)


def test_groups_may_nest_deeper_than_pythons_stack():
    for how in ("ends", "is cancelled", "is dropped"):
        play = Play(lambda ctx: nested(ctx, DEEPER))
        (path,) = play.pending
        if how == "is cancelled":
            play.driver.cancel("enough", 1)
            with pytest.raises(Cancelled, match="enough"):
                play.end(path).result  # noqa: B018 - it raises
        elif how == "ends":
            assert play.end(path, 1).driver.outcome.error is None
        else:
            play.driver.close()
            assert not play.pending
