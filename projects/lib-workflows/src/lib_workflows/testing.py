"""For tests of workflows, in plain pytest: time that skips, crashes at the n-th commit, replay of a history.

async def test_a_reminder_is_sent_after_three_days(tmp_path):
    async with environment(f"sqlite:///{tmp_path}/test.db", workflows=[remind]) as env:
        handle = await env.engine.start(remind, "anna")
        assert await env.result(handle) == "reminded"          # three days pass at once

async def test_it_survives_a_crash_at_every_commit(tmp_path):
    async def scenario(engine):
        return await (await engine.start(order, Order(), id="order-1")).result(10)

    crashed, n = True, 0
    while crashed:
        n += 1
        url = f"sqlite:///{tmp_path}/{n}.db"
        result, crashed = await survive(url, [order], scenario, crash_at=n)
        assert result == "shipped"
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, select

from lib_events.chance import Seed, seeded
from lib_events.clock import SystemClock, to_datetime
from lib_events.database import Connection, Database, open_database
from lib_events.event import Recordable
from lib_events.event_log import SCHEMA as EVENTS_SCHEMA
from lib_events.lifecycle import running
from lib_events.nats.relay import Relay
from lib_events.statement import Fence, Write
from lib_events.tables import events
from lib_workflows.authoring.context import Context, RunInfo
from lib_workflows.authoring.delegation import TokenRequest
from lib_workflows.authoring.workflow import Registry, Workflow
from lib_workflows.engine import Engine
from lib_workflows.errors import Continued, DelegationRefused
from lib_workflows.events.matcher import Work, what_to_match
from lib_workflows.execution.driver import Driver
from lib_workflows.execution.history import replay, tags_at_start
from lib_workflows.reading.history_export import export_run
from lib_workflows.run_handle import RunHandle
from lib_workflows.runs.record import RunRecord
from lib_workflows.statements import HistoryRow
from lib_workflows.tables import SCHEMA
from lib_workflows.testing_faults import crashes, failing

__all__ = [
    "CrashingDatabase",
    "Environment",
    "GivenTokens",
    "SkippingClock",
    "crashes",
    "crashing_engine",
    "environment",
    "export_history",
    "failing",
    "replay_history",
    "survive",
]

POLL_SECONDS = 0.001
RESULT_SECONDS = 30.0
SERVICE = "workflows"
SEEDED_START = datetime(2026, 1, 1, tzinfo=UTC)

type AnyWorkflow = Workflow[*tuple[Any, ...], Any]


class SkippingClock:
    """A clock that stands still until it is told to skip."""

    def __init__(self, start: datetime | None = None) -> None:
        self._micros = SystemClock().micros() if start is None else int(start.timestamp() * 1e6)

    def micros(self) -> int:
        """Microseconds since the epoch."""
        self._micros += 1  # no two moments are the same
        return self._micros

    def skip_to(self, micros: int) -> None:
        """Let it be `micros`, unless that has passed."""
        self._micros = max(self._micros, micros)


class Environment:
    """An engine whose time skips: whenever every run rests, the clock goes to the next timer."""

    def __init__(self, engine: Engine, clock: SkippingClock) -> None:
        self.engine = engine
        self.clock = clock

    @property
    def now(self) -> datetime:
        """The environment's time."""
        return to_datetime(self.clock.micros())

    async def result[R](self, handle: RunHandle[R], *, timeout: float = RESULT_SECONDS) -> R:  # noqa: ASYNC109
        """The run's result; time skips while everybody rests. `timeout` is in real seconds."""
        waiting = asyncio.ensure_future(handle.result(timeout))
        try:
            while not waiting.done():
                await asyncio.wait([waiting], timeout=POLL_SECONDS)
                if await self._is_quiet() and not waiting.done():
                    self._skip()
            return waiting.result()
        finally:
            waiting.cancel()

    async def until_resting(self, *, timeout: float = RESULT_SECONDS) -> None:  # noqa: ASYNC109
        """Wait, in real time, until every run rests or has ended."""
        async with asyncio.timeout(timeout):
            while not await self._is_quiet():  # noqa: ASYNC110 - quiet is many things at once
                await asyncio.sleep(POLL_SECONDS)

    async def skip(self, duration: timedelta) -> None:
        """Let time pass, timer by timer."""
        until = self.clock.micros() + round(duration.total_seconds() * 1e6)
        residence = self.engine.residence
        timers = residence.timers
        # A schedule that was just made must wait for its time first.
        while not all(loop.is_pausing for loop in residence.beside):  # noqa: ASYNC110 - any of them may wake again
            await asyncio.sleep(POLL_SECONDS)
        while (at := timers.next_at()) is not None and at <= until:
            self.clock.skip_to(at)
            timers.fire_due()
            await self.until_resting()
        self.clock.skip_to(until)

    async def _is_quiet(self) -> bool:
        """Whether every run rests and no event is on its way to one: it takes real time to get there."""
        residence = self.engine.residence
        if not residence.is_quiet or await self.engine.database.read(_are_events_on_their_way):
            return False
        return residence.is_quiet

    def _skip(self) -> None:
        timers = self.engine.residence.timers
        at = timers.next_at()
        if at is not None:
            self.clock.skip_to(at)
            timers.fire_due()


def _are_events_on_their_way(connection: Connection) -> bool:
    unplaced = select(events.c.sequence).where(events.c.last_position.is_(None)).limit(1)
    return what_to_match(connection) is Work.MATCHES or connection.scalar(unplaced) is not None


@asynccontextmanager
async def environment(
    url: str,
    workflows: Sequence[AnyWorkflow],
    *,
    start: datetime | None = None,
    seed: int | None = None,
    **options: Any,
) -> AsyncIterator[Environment]:
    """Open an environment on a database; time begins at `start`.

    With a `seed` nothing is left to chance: the same test gets the same ids of runs, events and updates, the same
    `ctx.random()` and `ctx.uuid()`, and the same pauses between attempts, each time it runs. Time then begins at
    `SEEDED_START`. What is begun in two runs at once may still end in either order.
    """
    clock = SkippingClock(start or (SEEDED_START if seed is not None else None))
    with seeded(await _seed_for(url, seed, options.get("service", SERVICE))):
        async with Engine.open(url, workflows, clock=clock, **options) as engine:
            yield Environment(engine, clock)


async def _seed_for(url: str, seed: int | None, service: str = SERVICE) -> Seed | None:
    """The seed of one more life on a database: it goes on from what is there, else ids would come twice."""
    if seed is None:
        return None
    database = await open_database(url, service=service, schemas=[EVENTS_SCHEMA, SCHEMA])
    try:
        told = await database.read(lambda connection: connection.scalar(select(func.count()).select_from(events)))
    finally:
        await database.close()
    return Seed(f"{seed} {told}")


class Crashed(Exception):
    """The engine crashed, as it was told to."""


class CrashingDatabase(Database):
    """A database whose process dies at the n-th commit: before it, or after it but before anyone hears of it."""

    def __init__(self, inner: Database, *, crash_at: int | None, after: bool = False) -> None:
        super().__init__(service=inner.service)
        self.inner = inner
        self.dialect_name = inner.dialect_name
        self.commits = 0
        self.crashed = asyncio.Event()
        self._crash_at = crash_at
        self._after = after

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def transact[*A, R](
        self, function: Callable[[Connection, *A], R], *args: *A, fence: Fence | None = None
    ) -> R:
        """See `Database.transact`."""
        if self._lives():
            return await self.inner.transact(function, *args, fence=fence)
        if self._is_last():
            await self.inner.transact(function, *args, fence=fence)
        await asyncio.Event().wait()  # for ever: the process is dead
        raise Crashed

    async def read[*A, R](self, function: Callable[[Connection, *A], R], *args: *A) -> R:
        """See `Database.read`."""
        return await self.inner.read(function, *args)

    def write(
        self,
        *writes: Write,
        events: Sequence[Recordable] = (),
        fence: Fence | None = None,
        topics: Sequence[str] = (),
        after: Sequence[asyncio.Future[Any]] = (),
    ) -> asyncio.Future[None]:
        """See `Database.write`."""
        if self._lives():
            return self.inner.write(*writes, events=events, fence=fence, topics=topics, after=after)
        if self._is_last():
            self.inner.write(*writes, events=events, fence=fence, topics=topics, after=after)
        return asyncio.get_running_loop().create_future()

    def leading(self, role: str) -> Any:
        """See `Database.leading`."""
        return self.inner.leading(role)

    def on_notify(self, topic: str, callback: Callable[[], None]) -> Callable[[], None]:
        """See `Database.on_notify`."""
        return self.inner.on_notify(topic, callback)

    async def close(self) -> None:
        """See `Database.close`."""
        await self.inner.close()

    def _lives(self) -> bool:
        if self.crashed.is_set():
            return False
        self.commits += 1
        if self.commits == self._crash_at:
            self.crashed.set()
            return False
        return True

    def _is_last(self) -> bool:
        last = self._after and self.commits == self._crash_at
        self._after = False
        return last


@asynccontextmanager
async def crashing_engine(
    url: str, workflows: Sequence[AnyWorkflow], *, crash_at: int | None, after: bool = False, **options: Any
) -> AsyncIterator[tuple[Engine, CrashingDatabase]]:
    """An engine that dies at its `crash_at`-th commit, counted from when it is ready; see `survive`."""
    inner = await open_database(url, service="workflows", schemas=[EVENTS_SCHEMA, SCHEMA])
    database = CrashingDatabase(inner, crash_at=None, after=after)
    engine = Engine(database, Registry.of(list(workflows)), **options)
    try:
        async with running(Relay(inner, None)):
            await engine.__aenter__()
            database.commits, database._crash_at = 0, crash_at
            try:
                yield engine, database
            finally:
                if database.crashed.is_set():
                    await engine.abandon()
                else:
                    database._crash_at = None  # it has survived
                    await engine.__aexit__(None, None, None)
    finally:
        await inner.close()


async def survive[R](
    url: str,
    workflows: Sequence[AnyWorkflow],
    scenario: Callable[[Engine], Awaitable[R]],
    *,
    crash_at: int | Sequence[int],
    after: bool = False,
    seed: int | None = None,
    **options: Any,
) -> tuple[R, bool]:
    """Play `scenario(engine)` with a crash at the n-th commit, then again on a new engine over the same database.

    Several numbers crash several lives, one after the other (`crashes(seed)` draws them). The scenario must be one
    that may be played twice: start runs by id, ask before sending. Returns what it returned and whether every life
    crashed: `crash_at` is past the end when not. `seed` is as in `environment`, one for all lives.
    """
    with seeded(await _seed_for(url, seed)):
        return await _survive(url, workflows, scenario, crash_at=crash_at, after=after, **options)


async def _survive[R](
    url: str,
    workflows: Sequence[AnyWorkflow],
    scenario: Callable[[Engine], Awaitable[R]],
    *,
    crash_at: int | Sequence[int],
    after: bool,
    **options: Any,
) -> tuple[R, bool]:
    for number in [crash_at] if isinstance(crash_at, int) else crash_at:
        ended = await _play_until_crash(url, workflows, scenario, crash_at=number, after=after, **options)
        if ended is not None:
            return await ended, False
    async with Engine.open(url, workflows, **options) as engine:
        return await scenario(engine), True


async def _play_until_crash[R](
    url: str, workflows: Sequence[AnyWorkflow], scenario: Callable[[Engine], Awaitable[R]], **crash: Any
) -> asyncio.Future[R] | None:
    """Play one life; returns how the scenario ended, or None when the life crashed first."""
    async with crashing_engine(url, workflows, **crash) as (engine, database):
        playing = asyncio.ensure_future(scenario(engine))
        dying = asyncio.ensure_future(database.crashed.wait())
        await asyncio.wait([playing, dying], return_when=asyncio.FIRST_COMPLETED)
        dying.cancel()
        if not database.crashed.is_set():
            return playing
        playing.cancel()
        await asyncio.wait([playing])
        return None


class GivenTokens:
    """A source of tokens for tests: `environment(url, [report], tokens=GivenTokens({"https://orders.example": "…"}))`.

    `asked` says what steps asked for, in order. After `withdraw()` nothing is given any more.
    """

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self.asked: list[TokenRequest] = []
        self._tokens = tokens  # by resource
        self._is_withdrawn = False

    async def __call__(self, wanted: TokenRequest) -> str:
        """Give the token for a resource, to whatever run asks."""
        self.asked.append(wanted)
        if self._is_withdrawn:
            raise DelegationRefused("withdrawn", f"what run {wanted.run_id} may do for its starter was withdrawn")
        if wanted.resource not in self._tokens:
            raise DelegationRefused(
                "none", f"GivenTokens must have a token for {wanted.resource}, got none; give it one"
            )
        return self._tokens[wanted.resource]

    def withdraw(self) -> None:
        """Refuse from now on, as if the person had taken it back."""
        self._is_withdrawn = True


async def export_history(engine: Engine, run_id: str) -> dict[str, Any]:
    """A run and its history as JSON-able data, for `replay_history`."""
    return await engine.database.read(export_run, run_id)


def replay_history(workflow: AnyWorkflow, exported: dict[str, Any]) -> Any:
    """Replay an exported history against the code of today; raises `Nondeterministic` where they differ.

    Returns what the workflow returned (or raises what it raised); None while it is not at its end, and for a life that
    has continued as new.
    """
    record = RunRecord(**exported["run"])
    rows = [HistoryRow(**row) for row in exported["history"]]
    conductor = _OfflineConductor(record.info("/replay", tags_at_start(record, rows)))
    context = Context(conductor, workflow.encode_input)
    driver = Driver(record.life_name, lambda: workflow.function(context, *workflow.decode_input(record.input)))
    conductor.driver = driver
    try:
        replay(driver, rows, run_id=record.id, begun_at=record.started_at or record.created_at, resumed=True)
        outcome = driver.outcome
    finally:
        driver.close()
    if outcome is None or isinstance(outcome.error, Continued):
        return None
    if outcome.error is not None:
        raise outcome.error
    return outcome.value


class _OfflineConductor:
    """Drives a workflow without an engine."""

    driver: Driver

    def __init__(self, info: RunInfo) -> None:
        self._info = info

    def run_info(self) -> RunInfo:
        """See `Conductor`."""
        return self._info

    def now_micros(self) -> int:
        """See `Conductor`."""
        return self.driver.now

    def random_bytes(self) -> bytes:
        """See `Conductor`."""
        return self.driver.random_bytes()

    def report_progress(self, fraction: float, text: str) -> None:
        """See `Conductor`."""

    def is_patched(self, name: str) -> bool:
        """See `Conductor`."""
        return self.driver.patches.setdefault(name, not self.driver.is_replaying)

    def history_length(self) -> int:
        """See `Conductor`."""
        return self.driver.delivered
