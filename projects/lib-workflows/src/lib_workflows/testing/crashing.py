"""Crashes at the n-th commit: the engine dies there, and a new one goes on over the same database."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from lib_events.chance import seeded
from lib_events.database import Connection, Database, open_database
from lib_events.event import Recordable
from lib_events.event_log import SCHEMA as EVENTS_SCHEMA
from lib_events.lifecycle import running
from lib_events.nats.relay import Relay
from lib_events.statement import Fence, Write
from lib_workflows.authoring.workflow import AnyWorkflow, Registry
from lib_workflows.engine import Engine
from lib_workflows.tables import SCHEMA
from lib_workflows.testing.seeds import SERVICE, seed_for


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
    inner = await open_database(url, service=SERVICE, schemas=[EVENTS_SCHEMA, SCHEMA])
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
    with seeded(await seed_for(url, seed)):
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
