"""The engine as a library: open it on a database, start runs, get their results.

Whatever is held in memory is the residence's; the engine is its life and the way in.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from lib_events.adapters.committer import settled
from lib_events.clock import Clock, SystemClock
from lib_events.database import Database, DatabaseError, Fenced, open_database
from lib_events.event import Cause, current_cause
from lib_events.event_log import SCHEMA as EVENTS_SCHEMA
from lib_events.lifecycle import Loop, running
from lib_events.nats.relay import Relay
from lib_workflows.authoring.context import encoded_input
from lib_workflows.authoring.delegation import TokenSource
from lib_workflows.authoring.guard import is_guarded
from lib_workflows.authoring.messages import Principal, check_principal
from lib_workflows.authoring.queue import check_queue_key, check_queue_name, check_served_queues
from lib_workflows.authoring.start_options import OnConflict, check_on_conflict, check_priority
from lib_workflows.authoring.workflow import AnyWorkflow, Registry, Workflow, check_worker_tags
from lib_workflows.declarations import Declarations
from lib_workflows.errors import DefinitionError, DeterminismError, EngineStopped
from lib_workflows.events.matcher import Matcher
from lib_workflows.keeping.retention import RetentionPolicy, RunRetention
from lib_workflows.queueing.queues import Queues
from lib_workflows.reading.queries import RunView, view_of_new
from lib_workflows.run_handle import RunHandle
from lib_workflows.runs import commands
from lib_workflows.runs.commands import StartRequest, new_run
from lib_workflows.runs.record import RunRecord
from lib_workflows.scheduling.scheduler import Scheduler
from lib_workflows.scheduling.schedules import Schedules
from lib_workflows.tables import SCHEMA
from lib_workflows.values.durations import check_moment, check_optional_seconds, check_seconds
from lib_workflows.values.identifiers import check_chosen_id, time_ordered_id
from lib_workflows.values.tags import check_tags
from lib_workflows.values.texts import check_name
from lib_workflows.workers.limits import Limits
from lib_workflows.workers.loop_watch import LoopWatch
from lib_workflows.workers.residence import OnProgress, Residence
from lib_workflows.workers.unclaimed import UnclaimedAlarm
from lib_workflows.workers.worker import LEASE_SECONDS, Undertaker, Worker

if TYPE_CHECKING:
    from lib_events.tracing.traces import Traces

logger = logging.getLogger(__name__)


class Engine:
    """Runs the workflows of a registry on a database; `async with` starts, recovers, and drains on exit.

    With `works=False` it only takes commands: workers in other processes (PostgreSQL) do the work. With `queues` it
    works on the runs of these queues only, with `tags` also on those of workflows that require them.
    `on_progress(run_id, fraction, text, detail)` hears of live progress; it may be called from a step's thread.
    `limits` says how much it keeps in memory, and how many steps run in threads and processes. Without a `retention`
    policy runs are kept for ever. `tokens` is asked for the access tokens with which steps act
    for the person who started their run. With `traces` (see `lib_events.tracing`) runs and steps are told of there.
    """

    def __init__(
        self,
        database: Database,
        registry: Registry,
        *,
        clock: Clock | None = None,
        works: bool = True,
        on_progress: OnProgress | None = None,
        limits: Limits | None = None,
        queues: Collection[str] | None = None,
        tags: Collection[str] = (),
        lease_seconds: float = LEASE_SECONDS,
        retention: RetentionPolicy | None = None,
        tokens: TokenSource | None = None,
        traces: "Traces | None" = None,
    ) -> None:
        self.database = database
        self.registry = registry
        self.clock = clock or SystemClock()
        self._limits = limits or Limits()
        self._worker = Worker(database, lease_seconds=lease_seconds)
        self.residence = Residence(
            database,
            registry,
            self._worker,
            clock=self.clock,
            limits=self._limits,
            queues=check_served_queues(queues),
            tags=check_worker_tags(tags, "tags of a worker"),
            on_progress=on_progress,
            tokens=tokens,
            traces=traces,
        )
        self.results = self.residence.results
        self.schedules = Schedules(database, registry, clock=self.clock)
        self.queues = Queues(database, registry, clock=self.clock, on_change=self.residence.arrivals.learn_limits)
        self._declarations = Declarations(database, registry, self.queues, clock=self.clock, look_seconds=lease_seconds)
        self._works = works
        self._retention = retention
        self._is_open = False
        self._starting: set[asyncio.Task[str]] = set()
        self._loops = AsyncExitStack()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, workflows: Iterable[AnyWorkflow], *, service: str = "workflows", **options: Any
    ) -> AsyncIterator["Engine"]:
        """Open the database at `url` for these workflows alone, with everything an engine needs beside it."""
        database = await open_database(url, service=service, schemas=[EVENTS_SCHEMA, SCHEMA])
        try:
            engine = cls(database, Registry.of(list(workflows)), **options)
            async with running(Relay(database, None)), engine:
                yield engine
        finally:
            await database.close()

    @property
    def progress(self) -> Mapping[str, tuple[float | None, str]]:
        """The last progress of each run in memory."""
        return self.residence.progress

    @property
    def runs_in_memory(self) -> int:
        """How many runs this engine has in memory."""
        return len(self.residence.executors)

    @property
    def runs_ended(self) -> Mapping[tuple[str, str], int]:
        """How many runs have ended here since it was opened, by workflow and status (parked ones, too)."""
        return self.residence.ended

    async def __aenter__(self) -> Self:
        """Begin: take over what an earlier life left, and work."""
        try:
            await self._begin()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def _begin(self) -> None:
        self._worker.declares = await self._declarations.number()
        if self._works:
            await self._worker.begin(self.residence.fenced)
            self.residence.is_open = True
        # As a worker that lives: whoever begins after it sees what it declares.
        await self._declarations.declare(works=self._works)
        if self._works:
            watch = LoopWatch(blocked_seconds=self._limits.blocked_seconds)
            watch.start()
            self._loops.callback(watch.stop)
            self.residence.logs.open()
            await self._loops.enter_async_context(running(*self._background(), *await self._tracing()))
        self._is_open = True

    def _background(self) -> list[Loop]:
        arrivals = self.residence.arrivals
        scheduler = Scheduler(self.database, self.registry, self.residence.timers)
        matcher = Matcher(self.database, self.residence.timers)
        self.residence.beside = [scheduler, matcher]
        alarm = UnclaimedAlarm(self.database, self.clock, registry=self.registry)
        loops: list[Loop] = [matcher, arrivals, scheduler, alarm]
        if self.database.dialect_name == "postgresql":
            seconds = self._worker.lease_seconds
            loops.append(Undertaker(self.database, lease_seconds=seconds, on_found=arrivals.wake))
            loops.append(self._declarations)
        if self._retention is not None:
            loops.append(RunRetention(self.database, self._retention, clock=self.clock))
        return loops

    async def _tracing(self) -> list[Loop]:
        """What tells of runs in traces, where there are any: it has its place before there is anything to tell."""
        if self.residence.traces is None:
            return []
        from lib_workflows.tracing import RunTracer  # noqa: PLC0415 - only here must OpenTelemetry be installed

        tracer = RunTracer(self.database, self.residence.traces, clock=self.clock)
        await tracer.take_place()
        return [tracer]

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drain: let what is under way end, then leave everything to the next life."""
        self._is_open = False
        if self._starting:
            await asyncio.wait(self._starting)
        await self._loops.aclose()
        try:
            if self._works and self.residence.is_open:
                await self.residence.drain()
                await self.residence.logs.settle()
                self.residence.drop_all()
                if not self.residence.is_lost:
                    await self._worker.end()
        except DatabaseError as failed:
            logger.warning("the runs of this worker go on elsewhere, or at its next start: %s", failed)
        finally:
            await self.residence.close()

    async def abandon(self) -> None:
        """Stop like a crash: nothing more is written, nothing is released (for tests of recovery)."""
        self._is_open = False
        for starting in self._starting:
            starting.cancel()
        if self._starting:
            await asyncio.wait(self._starting)
        self.residence.drop_all()
        self.residence.is_open = False
        await self._loops.aclose()
        await self._worker.end(release=False)
        await self.residence.close()

    # Starting runs

    async def start[*In, R](
        self,
        workflow: Workflow[*In, R],
        *args: *In,
        id: str | None = None,  # noqa: A002 - the embedding API
        queue: str | None = None,
        queue_key: str | None = None,
        priority: int = 0,
        delay: timedelta | None = None,
        deadline: datetime | None = None,
        tags: Mapping[str, str] | None = None,
        principal: Principal | None = None,
        idempotency_key: str | None = None,
        on_conflict: OnConflict = "same",
        debounce: str | None = None,
        debounce_limit: timedelta | None = None,
    ) -> RunHandle[R]:
        """Start a run; durable when this returns.

        The same id (or idempotency key of the principal), workflow and input is the same run, else `RunConflict`;
        with `on_conflict="existing"` the input may differ, with "fail" any run of that id is a conflict.
        Starts of the principal with the same workflow and `debounce` key are one run until it begins: `delay` after the
        last of them and with its input, but no later than `debounce_limit` after the first. Where runs of the queue
        take turns, `queue_key` says with whom, instead of the field of the input that the queue names.
        """
        request = self.request(
            workflow,
            encoded_input(workflow, args),
            id=id,
            queue=queue,
            queue_key=queue_key,
            priority=priority,
            delay=delay,
            deadline=deadline,
            tags=tags,
            principal=principal,
            idempotency_key=idempotency_key,
            on_conflict=on_conflict,
            debounce=debounce,
            debounce_limit=debounce_limit,
        )
        run_id = await self.submit(request)
        return RunHandle(self, run_id, workflow)

    async def start_many[In, R](
        self, workflow: Workflow[In, R], inputs: Iterable[In], *, principal: Principal | None = None
    ) -> list[RunHandle[R]]:
        """Start a run for each input, all in one commit."""
        requests = [self.request(workflow, encoded_input(workflow, (value,)), principal=principal) for value in inputs]
        ids = await self.submit_many(requests)
        return [RunHandle(self, run_id, workflow) for run_id in ids]

    def request(
        self,
        workflow: AnyWorkflow,
        payload: str | None,
        *,
        id: str | None = None,  # noqa: A002
        queue: str | None = None,
        queue_key: str | None = None,
        priority: int = 0,
        delay: timedelta | None = None,
        deadline: datetime | None = None,
        tags: Mapping[str, str] | None = None,
        principal: Principal | None = None,
        idempotency_key: str | None = None,
        cause: Cause | None = None,
        on_conflict: OnConflict = "same",
        debounce: str | None = None,
        debounce_limit: timedelta | None = None,
    ) -> StartRequest:
        """Everything about a run to start; `payload` is the input as checked JSON text."""
        self.residence.check_known(workflow)
        if queue is not None:
            check_queue_name(queue)
        given = {"id of a run": id, "idempotency_key": idempotency_key, "debounce": debounce}
        for what, name in given.items():
            if name is not None:
                check_name(name, what)
        check_chosen_id(id)
        check_on_conflict(on_conflict)
        now = self.clock.micros()
        delay_seconds = check_seconds(delay, "delay") if delay is not None else 0.0
        limit_seconds = check_optional_seconds(debounce_limit, "debounce_limit")
        if debounce is not None and (not delay_seconds or id is not None or idempotency_key is not None):
            raise DefinitionError("debounce must be given with a delay, and neither with an id nor an idempotency_key")
        return StartRequest.of(
            workflow,
            payload,
            queue=queue,
            queue_key=check_queue_key(queue_key),
            id=id,
            priority=check_priority(priority),
            run_at=now + round(delay_seconds * 1e6) if delay_seconds else None,
            deadline_at=check_moment(deadline, "deadline") if deadline is not None else None,
            tags=check_tags(tags) if tags else {},
            principal=check_principal(principal) if principal is not None else None,
            idempotency_key=idempotency_key,
            cause=cause or current_cause.get(),
            debounce_key=debounce,
            debounce_until=now + round(limit_seconds * 1e6) if limit_seconds is not None else None,
            on_conflict=on_conflict,
        )

    async def submit(self, request: StartRequest) -> str:
        """Start the run of a request and return its id; raises `RunConflict`."""
        if request.is_plain:
            return (await self.submit_many([request]))[0]
        self._check_open()
        # A caller that is cancelled meanwhile must not leave a run behind that is durable, and in nobody's memory.
        starting = asyncio.Task(self._start(request), loop=asyncio.get_running_loop(), eager_start=True)
        self._starting.add(starting)
        starting.add_done_callback(self._starting.discard)
        return await asyncio.shield(starting)

    async def _start(self, request: StartRequest) -> str:
        now = self.clock.micros()
        if request.id is None:
            request = replace(request, id=time_ordered_id(now))  # the caller's still says that it chose none
        owner = self._worker.owner if self.residence.can_run(request) else None
        try:
            fence = self._worker.fence if owner else None
            with self.residence.arrivals.doubt.about_commit():
                run_id, created = await self.database.transact(commands.start, request, now, owner, fence=fence)
        except Fenced:
            # This worker was taken for dead: the run is for whoever lives.
            self.residence.fenced(owner or "")
            run_id, _ = await self.database.transact(commands.start, request, now)
            return run_id
        if created and owner and owner == self._worker.owner and self.residence.is_open:
            self.residence.run_now(new_run(request, now, owner))
        return run_id

    async def submit_many(self, requests: Sequence[StartRequest]) -> list[str]:
        """Start runs with new ids, all in one commit."""
        return [run.id for run in await self._insert(self._new_runs(requests))]

    async def start_new(self, requests: Sequence[StartRequest]) -> list[RunView]:
        """The same; returns each run as it began, as in a list: it is not read, and goes on meanwhile."""
        runs = self._new_runs(requests)
        began = [view_of_new(run) for run in runs]
        inserted = await self._insert(runs)
        return began if inserted is runs else [view_of_new(run) for run in inserted]

    def _new_runs(self, requests: Sequence[StartRequest]) -> list[RunRecord]:
        self._check_open()
        now, owner, can_run = self.clock.micros(), self._worker.owner, self.residence.can_run
        return [new_run(request, now, owner if can_run(request) else None) for request in requests]

    async def _insert(self, runs: list[RunRecord]) -> list[RunRecord]:
        """Insert new runs; returns them as they are inserted."""
        if not runs:
            return runs
        residence, owner = self.residence, self._worker.owner
        try:
            await settled(residence.start(runs))
        except Fenced:
            # This worker was taken for dead: the runs are for whoever lives.
            residence.fenced(owner)
            now = self.clock.micros()
            runs = [replace(run, owner=None, status="queued", wake_at=now, started_at=None) for run in runs]
            await residence.start(runs)
        if None in [run.owner for run in runs]:
            await self.database.transact(lambda connection: connection.notify(commands.RUNS_TOPIC))
        return runs

    def handle[R](self, run_id: str, workflow: Workflow[*tuple[Any, ...], R] | None = None) -> RunHandle[R]:
        """A handle on a run that exists."""
        return RunHandle(self, run_id, workflow)

    def _check_open(self) -> None:
        if not self._is_open:
            raise EngineStopped("the engine must be running to start a run; use `async with`")
        if is_guarded():
            raise DeterminismError("a workflow must start runs by its ctx; use await ctx.child(…) or ctx.start(…)")
        self.database.check_loop()
