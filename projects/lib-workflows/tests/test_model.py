"""A model of runs, steps, timers, signals, children and cancellations, played against the engine by chance.

After each rule the engine is left to rest, except by a crash, which comes at once; whatever was acknowledged before
must hold afterwards. Each example has runs of its own on one database.
"""

import asyncio
import itertools
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta

import flows
import pytest
from flows import double, doubling, release, reserve
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import func, select

from lib_events.testing import wait_until
from lib_workflows import Context, Signal, WaitTimeout, workflow
from lib_workflows.errors import CommandRefused
from lib_workflows.reading import queries
from lib_workflows.tables import runs
from lib_workflows.testing import environment

number_came = Signal("number", int)
PATIENCE = timedelta(hours=1)
examples = itertools.count()


@workflow(name="tally")
async def tally(ctx: Context, wanted: int) -> int:
    """Add up so many numbers, doubled by children and steps; what is held goes back when nobody is patient."""
    await ctx.transaction(reserve, ctx.run_id, 1, undo=release)
    total = 0
    for _ in range(wanted):
        try:
            number = await ctx.wait_signal(number_came, timeout=PATIENCE)
        except WaitTimeout:
            break
        doubled, again = await ctx.gather(ctx.child(doubling, number), ctx.step(double, number))
        assert doubled == again
        total += doubled
    return total


@dataclass
class Told:
    """What the model knows of a run."""

    wanted: int
    numbers: list[int] = field(default_factory=list)
    waited_hours: float = 0.0  # for its next number
    cancelled: bool = False

    def take(self, number):
        self.numbers.append(number)
        self.waited_hours = 0.0

    def cancel(self):
        self.cancelled = True

    def wait(self, hours):
        if not self.is_over:
            self.waited_hours += hours

    @property
    def timed_out(self):
        return self.waited_hours > PATIENCE.total_seconds() / 3600

    @property
    def is_over(self):
        return self.cancelled or self.timed_out or len(self.numbers) >= self.wanted

    @property
    def total(self):
        return sum(2 * number for number in self.numbers[: self.wanted])


class Machine(RuleBasedStateMachine):
    """The engine on one side, `Told` on the other."""

    url: str

    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.prefix = f"example-{next(examples)}"
        self.told: dict[str, Told] = {}
        self.stack = AsyncExitStack()
        self.env = None
        self.start_at = None

    def play(self, work):
        return self.loop.run_until_complete(asyncio.wait_for(work, 60))

    @initialize()
    def open(self):
        self.play(self._open())

    async def _open(self):
        self.env = await self.stack.enter_async_context(
            environment(self.url, [tally, doubling], start=self.start_at, lease_seconds=0.5)
        )
        await self.env.engine.database.transact(flows.make_stock)

    def handle(self, run_id):
        return self.env.engine.handle(run_id, tally)

    # What people do

    @rule(wanted=st.integers(0, 3))
    def start(self, wanted):
        run_id = f"{self.prefix}-{len(self.told)}"
        self.told[run_id] = Told(wanted)
        self.play(self.env.engine.start(tally, wanted, id=run_id))
        self.play(self.env.until_resting())

    @precondition(lambda self: self.told)
    @rule(data=st.data(), number=st.integers(0, 9), crashes=st.booleans())
    def send(self, data, number, crashes):
        run_id = data.draw(st.sampled_from(sorted(self.told)))
        self.command(run_id, self.handle(run_id).signal(number_came, number), self.told[run_id].take, number)
        self.settle(crashes)

    @precondition(lambda self: self.told)
    @rule(data=st.data(), crashes=st.booleans())
    def cancel(self, data, crashes):
        run_id = data.draw(st.sampled_from(sorted(self.told)))
        self.command(run_id, self.handle(run_id).cancel(), self.told[run_id].cancel)
        self.settle(crashes)

    def command(self, run_id, command, apply, *args):
        """A command is taken by a run that goes on, and refused by one that is over."""
        if self.told[run_id].is_over:
            with pytest.raises(CommandRefused):
                self.play(command)
        else:
            self.play(command)
            apply(*args)

    @rule(hours=st.sampled_from([0.3, 2.0]))
    def wait(self, hours):
        self.play(self.env.skip(timedelta(hours=hours)))
        self.play(self.env.until_resting())
        for told in self.told.values():
            told.wait(hours)

    @rule()
    def start_again(self):
        self.settle(crashes=True)

    def settle(self, crashes):
        if crashes:
            self.start_at = self.env.now
            self.play(self.env.engine.abandon())
            self.play(self.stack.aclose())
            self.stack = AsyncExitStack()
            self.play(self._open())
            self.play(wait_until(self._nobody_else_has_runs))
        self.play(self.env.until_resting())

    async def _nobody_else_has_runs(self):
        """On PostgreSQL the crashed worker has its runs until its lease ends."""
        mine = self.env.engine.residence.worker_id
        held = select(func.count()).where(runs.c.owner.is_not(None), runs.c.owner != mine)
        return await self.env.engine.database.read(lambda connection: connection.scalar(held)) == 0

    # What must hold

    @invariant()
    def nothing_is_parked_and_stock_agrees(self):
        for run_id, told in self.told.items():
            run = self.play(self.env.engine.database.read(queries.get_run, run_id))
            stock = self.play(self.env.engine.database.read(flows.stock_of, run_id))
            if told.cancelled:
                assert run.status == "cancelled"
                assert stock == [-1, 1]
            elif told.is_over:
                assert (run.status, run.output, stock) == ("completed", told.total, [-1])
            else:
                assert (run.status, stock) == ("waiting", [-1])

    def teardown(self):
        try:
            if self.env is not None:
                self.play(self._end())
        finally:
            self.play(self.stack.aclose())
            self.loop.close()

    async def _end(self):
        """Whatever still waits is cancelled, and undone."""
        waiting = [run_id for run_id, told in self.told.items() if not told.is_over]
        for run_id in waiting:
            await self.handle(run_id).cancel()
        await self.env.until_resting()
        for run_id in waiting:
            assert await self.handle(run_id).status() == "cancelled"


def play_by_chance(url, examples):
    machine = type("MachineOnDatabase", (Machine,), {"url": url})
    chosen = settings(
        max_examples=examples,
        stateful_step_count=12,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=chosen)


def test_the_engine_does_what_the_model_says_on_sqlite(sqlite_url):
    play_by_chance(sqlite_url, 15)


@pytest.mark.postgresql
def test_the_engine_does_what_the_model_says_on_postgresql(postgresql_url):
    play_by_chance(postgresql_url, 5)
