"""Parents and children: how a run starts others, passes its cancellation on to them, and hears of their end.

A child is inserted with what led to it, and its id follows from parent and operation: starting it again changes
nothing. Its end is a row of its own; a parent in memory hears of it at once, any other is made due in the database.
"""

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from lib_events.database import CommitQueueFull
from lib_events.event import Cause
from lib_events.statement import Fence, Write
from lib_events.trace_context import TraceContext
from lib_workflows.authoring.messages import Principal
from lib_workflows.authoring.operation import RunChild, StartRun
from lib_workflows.errors import CommandRefused
from lib_workflows.execution.executor import Executor
from lib_workflows.execution.home import Start
from lib_workflows.runs import commands
from lib_workflows.runs.commands import RUNS_TOPIC, StartRequest, new_run
from lib_workflows.runs.named_children import begin_child
from lib_workflows.runs.record import Child, RunRecord, child_run_id
from lib_workflows.statements import WAKE_RUN
from lib_workflows.values.trace_places import operation_span, run_span, trace_of
from lib_workflows.workers.births import Birth

if TYPE_CHECKING:
    from lib_workflows.workers.residence import Residence

logger = logging.getLogger(__name__)

CANCEL_RETRY_SECONDS = 0.05
STARTED_AT_ONCE = 8  # under ids that their parents chose
CANCELLED_AT_ONCE = 8  # each is a transaction, and there must be connections and time for others
WAKE_RETRY_SECONDS = 0.5  # after a commit that failed


class _Ended(NamedTuple):
    """The end of a child, and what saves it."""

    operation: str
    child: Child
    saving: asyncio.Future[None]

    @property
    def is_lost(self) -> bool:
        """Whether it was not saved: the child comes to its end again."""
        return self.saving.done() and (self.saving.cancelled() or self.saving.exception() is not None)


class Kinship:
    """What the runs of one process have to do with the runs they start."""

    def __init__(self, residence: "Residence") -> None:
        self._residence = residence
        self.waking: dict[str, asyncio.Future[None]] = {}  # by parent: it is being made due
        self._news: dict[str, list[_Ended]] = {}  # by parent: its children that have just ended
        self._starting = asyncio.Semaphore(STARTED_AT_ONCE)
        self._cancelling = asyncio.Semaphore(CANCELLED_AT_ONCE)

    @property
    def is_quiet(self) -> bool:
        """Whether every parent has been told."""
        return not self._news and not self.waking

    # Down

    def start_child(self, parent: Executor, path: str, operation: RunChild[Any]) -> None:
        """Start the child of an operation, in one commit with what led to it: a replay must ask for the same child."""
        home, now = self._residence, self._residence.timers.clock.micros()
        request = self.request_of(parent, path, operation, now)
        owner = home.worker_id if home.can_run(request) else None
        birth = Birth.of(new_run(request, now, owner), home.database.source)
        parent.children[path] = Child(birth.record.id, operation.name, birth.record.status)
        parent.ledger.add(birth.write(), None if owner is None else partial(self._child_is_on_its_way, birth))
        parent.ledger.tell(birth.event())
        if owner is None:
            parent.ledger.notify(RUNS_TOPIC)  # it is queued, for whoever can take it

    def _child_is_on_its_way(self, birth: Birth, saving: asyncio.Future[None]) -> None:
        arrivals = self._residence.arrivals
        # Not within the parent's turn: children of children would nest without end.
        arrivals.loading[birth.record.id] = []
        asyncio.get_running_loop().call_soon(self._begin_child, birth, saving)

    def _begin_child(self, birth: Birth, saving: asyncio.Future[None]) -> None:
        home = self._residence
        home.arrivals.loading.pop(birth.record.id, None)
        if home.is_open and birth.record.owner == home.worker_id:
            home.begin(birth, saving)

    async def start_named(self, request: StartRequest, fence: Fence | None) -> Child:
        """Queue a child under the id that its parent chose; raises `RunIdTaken`."""
        home = self._residence
        async with self._starting:
            return await home.database.transact(begin_child, request, home.timers.clock.micros(), fence=fence)

    def start_apart(self, starter: Executor, path: str, operation: StartRun) -> Start:
        """What starts the run of `ctx.start`: it belongs to nobody and is queued with the starter's history row."""
        now = self._residence.timers.clock.micros()
        request = self.request_of(starter, path, operation, now)
        birth = Birth.of(new_run(request, now), self._residence.database.source)
        return Start(birth.record.id, birth.record.input, birth.write(), birth.event())

    def request_of(self, starter: Executor, path: str, operation: RunChild[Any] | StartRun, now: int) -> StartRequest:
        """The start of a run by an operation of another: in its name and trace, caused by it, and by both always the
        same.
        """
        run, life, is_child = starter.run, starter.stored.life, isinstance(operation, RunChild)
        span = operation_span(run.id, life, path, 1) if is_child else run_span(run.id, life)
        request = self._request_within(starter, path, operation, span, now)
        if is_child:
            request.parent, request.parent_operation, request.depth = run.id, path, run.depth + 1
            request.parent_life = None if operation.options.id is None else life
        return request

    def _request_within(
        self, starter: Executor, path: str, operation: RunChild[Any] | StartRun, span: str, now: int
    ) -> StartRequest:
        run, workflow, options = starter.run, operation.workflow, operation.options
        self._residence.check_known(workflow)
        delay = round(options.delay_seconds * 1e6)
        trace_id, parent = trace_of(run.traceparent, run.correlation_id or run.id)
        within = TraceContext(trace_id, span, parent is not None and parent.is_sampled)
        return StartRequest.of(
            workflow,
            workflow.encode_input(operation.args),
            queue=options.queue,
            queue_key=options.queue_key,
            priority=options.priority,
            run_at=now + delay if delay else None,
            deadline_at=options.deadline_at,
            tags=options.tags,
            id=options.id or child_run_id(run.id, path, starter.stored.life),
            on_conflict=options.on_conflict,
            principal=Principal(run.principal, run.principal_name) if run.principal else None,
            cause=Cause(run.correlation_id, run.id, run.principal, str(within)),
        )

    def cancel_child(self, parent: Executor, operation: str) -> None:
        """Pass a cancellation on, durably, wherever the child is; the parent's operation awaits its end."""
        child = parent.children.get(operation)
        if child is not None and not child.has_ended:
            parent.when_durable(partial(self._spawn_cancel, parent, f"{operation}/cancellation", child.id))

    def _spawn_cancel(self, parent: Executor, name: str, child_id: str) -> None:
        # Under way until then: a parent that only waits is not taken up after a crash, and nobody would tell the child.
        parent.running[name] = self._residence.spawn(self._pass_on(parent, name, child_id))

    async def _pass_on(self, parent: Executor, name: str, child_id: str) -> None:
        await self._cancel(parent, child_id)
        parent.running.pop(name, None)
        parent.turn()

    async def _cancel(self, parent: Executor, child_id: str) -> None:
        """Cancel a child, durably, while its parent is in memory."""
        transact, reason = self._residence.database.transact, "its parent was cancelled"
        while not parent.ended:  # else its next life does this
            try:
                async with self._cancelling:
                    await transact(commands.cancel, child_id, reason, parent.clock_micros())
            except CommandRefused:
                return  # it has ended
            except Exception:  # noqa: BLE001 - whatever it is; its insertion, too, may still be on its way
                await asyncio.sleep(CANCEL_RETRY_SECONDS)
            else:
                return

    # Up

    def child_ended(self, run: RunRecord, saving: asyncio.Future[None]) -> None:
        """A run's last state has been handed to the commit: whoever started it and waits may know.

        What the parent decides upon it is not saved unless that is.
        """
        if run.parent is not None and run.parent_operation is not None and run.status != "nondeterministic":
            child = Child(run.id, run.workflow, run.status, run.output, run.error, run.parent_life)
            self._tell_soon(run.parent, _Ended(run.parent_operation, child, saving))

    def _tell_soon(self, parent_id: str, ended: _Ended) -> None:
        """Not within the child's turn, and to the parent as it is then: it may be about to leave. All in one go."""
        news = self._news.get(parent_id)
        if news is None:
            news = self._news[parent_id] = []
            asyncio.get_running_loop().call_soon(self._tell_parent, parent_id)
        news.append(ended)

    def _tell_parent(self, parent_id: str) -> None:
        home = self._residence
        news = [each for each in self._news.pop(parent_id) if not each.is_lost]
        parent = home.executors.get(parent_id)
        if not news:
            return
        if parent is not None:
            for each in news:
                each.saving.add_done_callback(partial(self._tell_again, parent, each))
        if parent is not None and not parent.is_leaving:
            parent.children_ended([(each.operation, each.child) for each in news], [each.saving for each in news])
        elif parent_id in home.arrivals.loading:
            for each in news:
                self._tell_loading(parent_id, each)
        elif parent is not None:
            # One group commit must not hold two versions of a row: the parent's last one goes first.
            parent.when_left(lambda: self._wake_parent(parent_id))
        else:
            self._wake_parent(parent_id)

    def _tell_again(self, told: Executor, ended: _Ended, _: asyncio.Future[None]) -> None:
        """One that was lost meanwhile may have been loaded before the child's end was saved."""
        if self._residence.executors.get(told.run.id) is not told:
            self._tell_soon(told.run.id, ended)

    def _tell_loading(self, parent_id: str, ended: _Ended) -> None:
        """What it reads of itself may be from before the child's end: it hears of that once it is saved."""
        if ended.saving.done():
            self._residence.arrivals.loading[parent_id].append((ended.operation, ended.child))
        else:
            ended.saving.add_done_callback(lambda _: self._tell_soon(parent_id, ended))

    def _wake_parent(self, parent_id: str) -> None:
        home = self._residence
        try:
            waking = home.database.write(Write(WAKE_RUN, (parent_id,)), fence=home.fence)
        except CommitQueueFull:
            home.spawn(self._wake_later(parent_id))
            return
        self.waking[parent_id] = waking
        waking.add_done_callback(lambda done: self._woke(parent_id, done))

    def _woke(self, parent_id: str, waking: asyncio.Future[None]) -> None:
        home = self._residence
        if self.waking.get(parent_id) is waking:
            del self.waking[parent_id]
        if not home.is_open:
            return
        if waking.cancelled() or waking.exception() is not None:
            home.spawn(self._wake_later(parent_id))
        else:
            home.spawn(home.database.transact(lambda connection: connection.notify(RUNS_TOPIC)))

    async def _wake_later(self, parent_id: str) -> None:
        """In a transaction of its own: the run may be here again, and a group must not hold two versions of its row."""
        while self._residence.is_open:
            await asyncio.sleep(WAKE_RETRY_SECONDS)
            try:
                await self._residence.database.transact(commands.wake, parent_id)
            except Exception as error:  # noqa: BLE001 - whatever it is, a parent that nobody wakes waits for good
                logger.warning("run %s, of which a child has ended, cannot be woken yet: %s", parent_id, error)
            else:
                return
