"""The runs a process has in memory: it gives executors what they need, and lets idle runs leave."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from lib_events.clock import Clock
from lib_events.database import Database, Fenced
from lib_events.lifecycle import Loop
from lib_events.statement import Fence
from lib_workflows.authoring.delegation import TokenSource
from lib_workflows.authoring.workflow import AnyWorkflow, Registry
from lib_workflows.events.looks import EventLooks
from lib_workflows.execution.executor import Executor
from lib_workflows.run_logs import RunLogs
from lib_workflows.runs import continuation
from lib_workflows.runs.commands import StartRequest
from lib_workflows.runs.lifecycle_events import Teller
from lib_workflows.runs.record import RunRecord, Stored
from lib_workflows.runs.results import Ending, Results
from lib_workflows.runs.state import UNDER_WAY
from lib_workflows.steps.places import StepPlaces
from lib_workflows.timers import Timers
from lib_workflows.workers.arrivals import Arrivals
from lib_workflows.workers.births import Birth
from lib_workflows.workers.kinship import Kinship
from lib_workflows.workers.limits import Limits
from lib_workflows.workers.worker import Worker

if TYPE_CHECKING:
    from lib_events.tracing.traces import Traces

logger = logging.getLogger(__name__)

BEGIN_SECONDS = 0.5  # between two tries to begin a new life
DRAIN_SECONDS = 10.0

type OnProgress = Callable[[str, float | None, str, Any], None]


class Residence:
    """The executors in memory, and the home of every one of them."""

    def __init__(
        self,
        database: Database,
        registry: Registry,
        worker: Worker,
        *,
        clock: Clock,
        limits: Limits,
        queues: Collection[str] | None = None,
        tags: frozenset[str] = frozenset(),
        on_progress: OnProgress | None,
        tokens: TokenSource | None = None,
        traces: "Traces | None" = None,
    ) -> None:
        self.database = database
        self.registry = registry
        self.event_looks = EventLooks(database, self.spawn)
        self.timers = Timers(clock)
        self.logs = RunLogs(database, lambda: self.fence)
        self.results = Results(database, self._is_here)
        self.progress: dict[str, tuple[float | None, str]] = {}  # the last of each run in memory
        self.places = StepPlaces(threads=limits.step_threads, processes=limits.step_processes, traces=traces)
        self.arrivals = Arrivals(self, queues, tags)
        self.kinship = Kinship(self)
        self.beside: list[Loop] = []  # what else may bring runs: it is quiet here only while they pause
        self.tokens = tokens
        self.traces = traces
        self.surroundings = copy_context()  # what code of runs finds: that of whoever opened the engine
        self.is_open = False
        self.is_draining = False
        self.is_lost = False
        self._worker = worker
        self._on_progress = on_progress
        self._idle_micros = int(limits.idle_seconds * 1e6)
        self._in_memory = limits.in_memory
        self.executors: dict[str, Executor] = {}
        self.ended = Counter[tuple[str, str]]()  # how many runs have ended here, by workflow and status
        self._resting: dict[str, None] = {}  # least recently active first
        self._wants_room: Callable[[], None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    # Life

    async def close(self) -> None:
        """Drop what is left and end everything in the background."""
        self.is_open = False
        self.drop_all()
        self.timers.close()
        self.logs.close()
        self.results.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=DRAIN_SECONDS)
        self.places.close()

    async def drain(self) -> None:
        """Let what is under way end; nothing new begins."""
        self.is_draining = True
        deadline = asyncio.get_running_loop().time() + DRAIN_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            busy = [entry for entry in self.executors.values() if not entry.is_idle]
            if not busy:
                return
            await asyncio.sleep(0.005)
        logger.warning("stopped with work under way; it goes on at the next start")

    def drop_all(self) -> None:
        """Forget every run in memory."""
        for executor in list(self.executors.values()):
            self._drop(executor)

    def _drop(self, executor: Executor) -> None:
        run_id = executor.run.id
        executor.close()
        if self.executors.get(run_id) is executor:
            del self.executors[run_id]
        self._gone(run_id)
        self.results.gone(run_id)

    def fenced(self, owner: str) -> None:
        """Somebody took over from the life `owner`: nothing of it in memory may be believed. Begin a new one."""
        if owner != self._worker.owner or self.is_lost or not self.is_open:
            return
        self.is_lost = True
        logger.error("this worker was taken for dead and its runs are elsewhere; beginning again")
        self.drop_all()
        self.spawn(self._begin_again())

    async def _begin_again(self) -> None:
        while self.is_lost:
            try:
                await self._worker.end(release=False)
                await self._worker.begin(self.fenced)
                self.is_lost = False
            except Exception as error:  # noqa: BLE001 - whatever it is, a worker that does not try is no worker
                logger.warning("a new life cannot begin yet: %s", error)
                await asyncio.sleep(BEGIN_SECONDS)
        self.arrivals.wake()

    # Runs that begin here

    def can_run(self, request: StartRequest) -> bool:
        """Whether a new run may begin here at once."""
        return (
            self.is_open
            and self.room > 0
            and request.run_at is None
            and request.queue not in self.arrivals.limited
            and self.arrivals.capability.includes(request.workflow, request.version, request.queue)
        )

    def check_known(self, workflow: AnyWorkflow) -> None:
        """Raise `UnknownWorkflow` where nobody could ever run it: of a SQLite file there is one process."""
        if self.database.dialect_name == "sqlite":
            self.registry.find(workflow.name, workflow.version)

    def start(self, records: Sequence[RunRecord]) -> asyncio.Future[None]:
        """Insert new runs, all in one commit with the events that tell of them, and begin those that are ours."""
        births = [self._birth(record) for record in records]
        saving = self._insert(births)
        for birth in births:
            if birth.record.owner is not None:
                self.begin(birth, saving)
        return saving

    def _birth(self, record: RunRecord) -> Birth:
        return Birth.of(record, self.database.source)

    def _insert(self, births: Sequence[Birth]) -> asyncio.Future[None]:
        fence = self._worker.fence if any(birth.record.owner for birth in births) else None
        return self.database.write(
            *[birth.write() for birth in births], events=[birth.event() for birth in births], fence=fence
        )

    def run_now(self, record: RunRecord) -> None:
        """Begin a new run of ours that has been inserted."""
        self.begin(self._birth(record), None)

    def begin(self, birth: Birth, saving: asyncio.Future[None] | None) -> None:
        """Bring a new run of ours into memory; `saving` is the commit that it is inserted by."""
        record = birth.record
        if record.id in self.executors or record.id in self.arrivals.loading:
            return  # somebody has sent it a message, and the scan was faster
        workflow = self.registry.find(record.workflow, record.version)
        executor = Executor(self, workflow, record, Stored(), birth.teller)
        self.executors[record.id] = executor
        if saving is not None:
            executor.ledger.follow(saving)
        executor.begin()

    # What executors need: see `Home`

    @property
    def worker_id(self) -> str:
        """The name of this life."""
        return self._worker.owner

    @property
    def fence(self) -> Fence | None:
        """What guards every commit."""
        return self._worker.fence

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` in the background; it ends with the engine."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._spawned_ended)
        return task

    def _spawned_ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("background work of the engine failed", exc_info=task.exception())

    def run_ended(self, executor: Executor, saving: asyncio.Future[None]) -> None:
        """A run's last state has been handed to the commit: its parent may know, others when it is durable."""
        self.logs.save()  # into the same commit: whoever hears of the end finds its last lines
        self.kinship.child_ended(executor.run, saving)
        saving.add_done_callback(partial(self._end_is_durable, executor))

    def _end_is_durable(self, executor: Executor, saving: asyncio.Future[None]) -> None:
        if saving.cancelled() or saving.exception() is not None:
            return  # the ledger reports it lost
        run = executor.run
        self.ended[run.workflow, run.status] += 1
        executor.close()
        if self.executors.get(run.id) is executor:
            del self.executors[run.id]
        if not self._is_here(run.id):  # else it was retried meanwhile, and this is not how it ends
            self._gone(run.id)
            self.results.ended(run.id, Ending(run.status, run.output, run.error))
        if run.queue in self.arrivals.limited:
            self.arrivals.slot_came_free(run.queue)

    async def continue_as_new(self, executor: Executor, payload: str | None) -> None:
        """Set the run's past apart, durably; it is claimed again like any queued run."""
        run_id = executor.run.id
        await self.logs.settle()  # what this life has logged goes with its past
        try:
            await self.database.transact(
                lambda connection: continuation.continue_as_new(
                    connection,
                    executor.run,
                    payload,
                    life=executor.stored.life,
                    received=executor.received,
                    waited=executor.waited,
                    now=self.timers.clock.micros(),
                ),
                fence=executor.fence,
            )
        except Exception as error:  # noqa: BLE001 - loaded again, the run comes to the same place
            self.run_lost(executor, error)
            return
        if self.executors.get(run_id) is executor:
            self._drop(executor)
        self.arrivals.wake()

    def run_lost(self, executor: Executor, error: BaseException) -> None:
        """A commit failed, or we have a defect: forget the run's memory and load it again."""
        run_id = executor.run.id
        if executor.ended and self.executors.get(run_id) is not executor:
            return  # it was forgotten before, and may be here again
        self._drop(executor)
        if not self.is_open or self.is_lost:
            return
        if isinstance(error, Fenced):
            self.fenced(executor.owner)
            return
        self.arrivals.load_again(run_id, error)

    def run_rests(self, executor: Executor) -> None:
        """A run only waits, durably: it may leave memory after a while."""
        if self.is_draining:
            return
        run_id = executor.run.id
        executor.last_active_at = self.timers.clock.micros()
        self._resting.pop(run_id, None)
        self._resting[run_id] = None
        if self._wants_room is not None:
            self.make_room(self._wants_room)

    def answered(self, executor: Executor, update_id: str) -> None:  # noqa: ARG002
        """An update was answered: tell who waits for it as soon as the answer is durable."""
        asyncio.get_running_loop().call_soon(executor.when_durable, self.results.something_happened)

    def report_progress(self, run_id: str, fraction: float | None, text: str, detail: Any = None) -> None:
        """Progress of a run (with `detail`: the heartbeat of a step); may come from a step's thread."""
        if detail is None:
            self.progress[run_id] = (fraction, text)
        if self._on_progress is None:
            return
        try:
            self._on_progress(run_id, fraction, text, detail)
        except Exception:  # who watches is none of the run's code
            logger.exception("on_progress of the engine must not fail, and did for run %s", run_id)

    def _is_here(self, run_id: str) -> bool:
        return run_id in self.executors

    # Leaving memory

    def evict_idle(self) -> None:
        """Let runs leave memory that have rested long enough."""
        before = self.timers.clock.micros() - self._idle_micros
        for run_id in list(self._resting):
            executor = self.executors.get(run_id)
            if executor is None or not executor.is_resting:
                del self._resting[run_id]
            elif executor.last_active_at <= before:
                self._evict(executor)
            else:
                break

    def let_go(self, executor: Executor) -> None:
        """A run only sleeps, for so long that it need not stay."""
        if not self.is_draining:
            self._evict(executor)

    @property
    def long_micros(self) -> int:
        """A run that sleeps for longer than runs rest in memory leaves at once."""
        return self._idle_micros

    def make_room(self, then: Callable[[], None]) -> None:
        """Call `then` when there is room again; those that have rested longest leave for it."""
        if self.is_lost or self.is_draining:
            return
        self._wants_room = then
        resting = [found for run_id in self._resting if (found := self.executors.get(run_id)) and found.is_resting]
        too_many = len(self.executors) - self._in_memory
        for executor in resting[: too_many + max(1, self._in_memory // 10)]:
            self._evict(executor)

    def _gone(self, run_id: str) -> None:
        """A run is not in memory any more."""
        self._resting.pop(run_id, None)
        self.progress.pop(run_id, None)
        if self._wants_room is not None and self.room:
            then, self._wants_room = self._wants_room, None
            then()

    def _evict(self, executor: Executor) -> None:
        self._resting.pop(executor.run.id, None)
        executor.leave(lambda: self._evicted(executor))

    def _evicted(self, executor: Executor) -> None:
        if self.executors.get(executor.run.id) is executor:
            wake_at = executor.wake_at()
            self._drop(executor)
            if wake_at is not None:
                self.arrivals.look_at(wake_at)

    @property
    def room(self) -> int:
        """How many more it may take in."""
        return 0 if self.is_lost or self.is_draining else max(0, self._in_memory - len(self.executors))

    @property
    def is_quiet(self) -> bool:
        """Whether every run here rests, durably: nothing happens until a timer ends or somebody does something."""
        loops = [self.arrivals, *self.beside]
        if (
            self._tasks
            or self.arrivals.loading
            or not self.kinship.is_quiet
            or not all(loop.is_pausing for loop in loops)
        ):
            return False
        return all(entry.is_resting for entry in self.executors.values())

    # Coming into memory

    def take_in(self, record: RunRecord, stored: Stored) -> None:
        """Bring a run that this life owns into memory, where it goes on from where its history ends."""
        if record.status not in UNDER_WAY or not self.registry.holds(record.workflow, record.version):
            return
        workflow = self.registry.find(record.workflow, record.version)
        executor = Executor(self, workflow, record, stored, Teller(record, self.database.source, stored.life))
        self.executors[record.id] = executor
        executor.begin()

    def forget(self, run_id: str) -> None:
        """Drop the run from memory, if it is there."""
        executor = self.executors.get(run_id)
        if executor is not None:
            self._drop(executor)
