"""Executes one run: performs what its driver asks for, writes the history, and keeps the run's row.

Everything happens in *turns*. A turn takes what has begun, what is cancelled and what has ended, until nothing
is left; then the run either ends, rests or goes on, and the ledger is flushed once. A completion becomes a row
first and is delivered to the workflow then, in one go: the order of rows is the order of deliveries.
"""

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lib_events.event import EncodedEvent
from lib_events.statement import Fence, Write
from lib_events.texts import message_of
from lib_workflows.authoring.context import Context, RunInfo
from lib_workflows.authoring.operation import WaitEvent
from lib_workflows.authoring.workflow import AnyWorkflow
from lib_workflows.errors import Nondeterministic
from lib_workflows.execution import effects, ending, event_effects, wait_effects
from lib_workflows.execution.completion import CancelRequest, Completion
from lib_workflows.execution.driver import Driver
from lib_workflows.execution.forgotten import check_begun, close_forgotten
from lib_workflows.execution.history import CANCEL_OPERATION, PATCH_PREFIX, comes_back, replay, tags_at_start
from lib_workflows.execution.home import Home
from lib_workflows.execution.ledger import Ledger
from lib_workflows.execution.mailbox import Mailbox
from lib_workflows.execution.salvage import reason_to_salvage, salvage
from lib_workflows.execution.surroundings import surroundings_of
from lib_workflows.execution.undoing import meta_of
from lib_workflows.run_logs import RunLog
from lib_workflows.runs import commands
from lib_workflows.runs.continuation import carried
from lib_workflows.runs.lifecycle_events import (
    RUN_RESUMED,
    RUN_STARTED,
    RUN_WAITING,
    STEP_COMPLETED,
    STEP_FAILED,
    Teller,
)
from lib_workflows.runs.record import (
    RECEIVED_KIND,
    UNDOING_KIND,
    Attempted,
    Child,
    Message,
    Progress,
    RunRecord,
    Stored,
)
from lib_workflows.statements import APPEND_HISTORY, DELETE_MESSAGE, HistoryRow
from lib_workflows.steps.attempt import Attempt
from lib_workflows.timers import Timer
from lib_workflows.values.codec import decode_json, encode_json
from lib_workflows.values.failure import stopped
from lib_workflows.values.tags import changed

logger = logging.getLogger(__name__)

NO_WAKES = 1 << 62  # a run that has ended is not woken
TURN_LIMIT = 2_000  # things that are done in one turn: others have theirs, and what was done is saved
FEW = 10  # waits of a run that are worth a look each time it rests
SLEEPS = frozenset(("sleep", "timeout"))
TOLD_KINDS = frozenset(("step", "transaction", "child", "undo"))


@dataclass(slots=True, eq=False)
class Executor:
    """One run in memory."""

    home: Home
    workflow: AnyWorkflow
    run: RunRecord
    stored: Stored
    teller: Teller
    running: dict[str, Any] = field(default_factory=dict)  # operations under way: attempts, registrations
    deadlines: dict[str, Timer] = field(default_factory=dict)  # by operation; the run's own under `RUN_DEADLINE`
    lingering: dict[str, Attempt] = field(default_factory=dict)  # threads that do not stop
    mailbox: Mailbox = field(default_factory=Mailbox)
    received: dict[tuple[str, str], int] = field(default_factory=dict)  # (type, match) -> up to where all have come
    waited: set[tuple[str, str]] = field(default_factory=set)  # those of them that this life has waited for
    replayed: frozenset[str] = frozenset()  # operations that may have begun in an earlier life
    transaction: str | None = None  # the operation whose transaction is under way
    transactions: list[Callable[[], None]] = field(default_factory=list)  # those that wait for it
    position: int = 0
    status: str = "running"
    is_live: bool = False
    is_at_rest: bool = False  # it only waits, and the row says for what, or is about to
    is_leaving: bool = False
    is_continuing: bool = False
    is_cancelled: bool = False
    cancel_reason: str = ""
    is_undoing: bool = False  # and its history says so
    ended: bool = False
    ended_at: int | None = None
    seen: int = 0
    last_active_at: int = 0
    _gated: list[Callable[[], None]] = field(default_factory=list)
    _inbox: deque[Completion | CancelRequest] = field(default_factory=deque)
    _in_turn: bool = False
    _row_is_stale: bool = False
    _waits: frozenset[tuple[str, str]] | None = None  # those that were told of last
    _on_left: Callable[[], None] | None = None
    attempts: dict[str, Attempted] = field(init=False)  # operation -> its last attempt that failed
    progress: dict[str, Progress] = field(init=False)  # operation -> its last heartbeat that was kept
    children: dict[str, Child] = field(init=False)
    driver: Driver = field(init=False)
    ledger: Ledger = field(init=False)
    log: RunLog = field(init=False)
    surroundings: contextvars.Context = field(init=False)
    _tags_at_start: str | None = field(init=False)
    owner: str = field(init=False)  # the life it belongs to, and what guards its commits
    fence: Fence | None = field(init=False)
    signal_run = staticmethod(commands.signal_run)  # see `Conductor`

    def __post_init__(self) -> None:
        self.owner, self.fence = self.home.worker_id, self.home.fence
        run, stored = self.run, self.stored
        self.seen = stored.wakes
        self.attempts, self.progress, self.children = stored.attempts, stored.progress, stored.children
        self.log = self.home.logs.of_run(run.id, stored.log_lines)
        self._tags_at_start = tags_at_start(run, stored.history)
        self.surroundings = surroundings_of(run, self.log, self.home.surroundings)
        encode, context = self.workflow.signature.result.encode, self.surroundings.copy()
        self.driver = Driver(run.life_name, self._call_workflow, encode, context=context)
        self.ledger = Ledger(self.home.database, self.fence, self)

    def _call_workflow(self) -> Coroutine[Any, Any, Any]:
        workflow = self.workflow
        return workflow.function(Context(self, workflow.encode_input), *workflow.decode_input(self.run.input))

    # The context's conductor

    def run_info(self) -> RunInfo:
        """See `Conductor`."""
        return self.run.info(self.home.database.source, self._tags_at_start)

    def now_micros(self) -> int:
        """See `Conductor`."""
        return self.driver.now

    def random_bytes(self) -> bytes:
        """See `Conductor`."""
        return self.driver.random_bytes()

    def report_progress(self, fraction: float, text: str) -> None:
        """See `Conductor`; neither a replay nor a run that leaves memory reports anything."""
        if not self.driver.is_replaying and not self.ended:
            self.home.report_progress(self.run.id, fraction, text)

    def is_patched(self, name: str) -> bool:
        """See `Conductor`; the first answer counts, and a yes is a row."""
        known = self.driver.patches.get(name)
        if known is None:
            known = self.driver.patches[name] = not self.driver.is_replaying
            if known:
                self.mark(f"{PATCH_PREFIX}{name}", "patch", name)
        return known

    def history_length(self) -> int:
        """See `Conductor`."""
        return self.driver.delivered

    def set_tags(self, changes: Mapping[str, str | None]) -> None:
        """Change the tags of the run's row; raises `TagsInvalid`."""
        self.run.tags = changed(self.run.tags, changes)
        self._row_is_stale = True

    def mark(self, operation: str, kind: str, name: str, meta: str | None = None, *, error: str | None = None) -> int:
        """Write a row for something that happened and that nobody waits for; returns when that was."""
        now, self.position = self.clock_micros(), self.position + 1
        row = HistoryRow(
            self.run.id, self.position, operation, kind, name, "completed", 1, now, now, error=error, meta=meta
        )
        self.ledger.add(Write(APPEND_HISTORY, row))
        return now

    # Life

    def begin(self) -> None:
        """Replay the history, then go on from where it ends."""
        run, rows = self.run, self.stored.history
        self.last_active_at = self.clock_micros()
        self.position = max(self.stored.last_position, rows[-1].position if rows else 0)
        # Lines are saved after the rows that led to them: where there is a line, those before it are there, too.
        resumed = self.stored.resumed and not self.stored.queued
        self.log.is_replaying = comes_back(rows) or (resumed and self.stored.log_lines > 0)
        cancelled_for: str | None = None  # although it does not fit
        begun_at, retries = run.started_at or run.created_at, self.stored.retries
        try:
            replay(self.driver, rows, run_id=run.id, begun_at=begun_at, resumed=resumed, retries=retries)
            check_begun(self.driver, run.id, self.stored)
        except Nondeterministic as error:
            cancelled_for = reason_to_salvage(self)
            if cancelled_for is None:
                ending.park(self, error)
                return
        run.tags = self._tags_at_start  # its rows say what has become of them: what the database has may come later
        for row in rows:
            self._recall(row)
        if cancelled_for is not None:
            salvage(self, cancelled_for)
        if self.stored.resumed:
            self.replayed = frozenset(self.driver.pending)
        self.is_live, self.log.is_replaying = True, False
        if self.stored.claimed:
            self.ledger.tell(self.teller.tell(RUN_STARTED, self.clock_micros()))
        ending.hear_cancellations(self)
        close_forgotten(self)
        rows.clear()  # replayed: what is worth keeping is in the workflow
        self.hear(self.stored.messages, self.stored.wakes)

    def _recall(self, row: HistoryRow) -> None:
        """What a row says beside what the workflow was told of it."""
        if row.kind == "wait_event":
            event_effects.remember(self, row.name, row.meta)
        elif row.kind == "tags":
            self.set_tags(decode_json(row.input or "{}"))
        elif row.kind == RECEIVED_KIND:
            self.received |= carried(row.meta)
        elif row.kind == "cancel" and not self.is_cancelled:
            self.is_cancelled, self.cancel_reason = True, row.meta or ""
        elif row.kind == UNDOING_KIND:
            self.is_undoing = True

    def clock_micros(self) -> int:
        """The engine's time."""
        return self.home.timers.clock.micros()

    def close(self) -> None:
        """Drop everything in memory; the database knows the rest."""
        self.ended = True
        self._gated.clear()
        self._inbox.clear()
        for running in list(self.running.values()):
            if isinstance(running, Attempt):
                running.reported = True
                running.stop()
        self.running.clear()
        for timer in self.deadlines.values():
            timer.cancel()
        self.driver.close()
        # No cycles: what has ended is gone at once, without the garbage collector.
        self.driver.start = _nothing
        self._on_left = None
        self.ledger.release()

    @property
    def is_resting(self) -> bool:
        """Whether it only waits, and the database knows for what."""
        at_rest = self.is_at_rest and not self.is_leaving
        return at_rest and not self.running and not self._gated and not self.lingers and self.ledger.is_durable

    @property
    def lingers(self) -> bool:
        """Whether a thread of a step goes on whose end was told: only who has it in memory knows when to undo that."""
        return any(attempt.lingers for attempt in self.lingering.values())

    def thread_ended(self) -> None:
        """A thread that lingered has ended: nothing keeps the run in memory any more."""
        if self.is_resting and not self.ended:
            self.home.run_rests(self)

    def wake_at(self) -> int | None:
        """When its next timer ends."""
        return min((timer.at for timer in self.deadlines.values()), default=None)

    def arm(self, operation: str, at: int, callback: Callable[[], None]) -> None:
        """Call `callback` at `at`, while the operation is what the run waits for."""
        self.deadlines[operation] = self.home.timers.add(at, partial(self._due, callback))

    def _due(self, callback: Callable[[], None]) -> None:
        # One that leaves begins nothing any more: whoever takes it next finds that the time has come.
        if not self.is_leaving:
            callback()

    def disarm(self, operation: str) -> None:
        """The operation waits for no time any more."""
        timer = self.deadlines.pop(operation, None)
        if timer is not None:
            timer.cancel()

    @property
    def is_idle(self) -> bool:
        """Whether nothing of it is under way nor on its way (steps that have not begun do not count)."""
        return not self.running and not self.lingers and self.ledger.is_durable

    def leave(self, then: Callable[[], None]) -> None:
        """Give the resting run back to the database, then call `then`.

        From here on nothing is heard in memory: another worker may have it as soon as the database says so.
        """
        assert self.is_at_rest  # noqa: S101 - whoever asks has looked
        self.is_leaving = True
        self._on_left = then
        self._row_is_due()
        self.ledger.flush()

    def when_left(self, then: Callable[[], None]) -> None:
        """Call `then` once the run has left."""
        before = self._on_left

        def both() -> None:
            if before is not None:
                before()
            then()

        self._on_left = both

    # What others tell

    def hear(self, messages: Sequence[Message], wakes: int) -> None:
        """Take messages from the inbox; `wakes` is how many the run has had."""
        self._row_is_stale |= wakes > self.seen  # it has to be told that they are seen
        self.seen = max(self.seen, wakes)
        # In one turn: the row that says they are seen must not go ahead of what they lead to.
        self._in_turn = True
        try:
            for message in messages:
                effects.take_message(self, message)
        finally:
            self._in_turn = False
        self.turn()

    def request_cancel(self, reason: str, message: int | None = None) -> None:
        """Cancel the run, in turn."""
        self._inbox.append(CancelRequest(reason, message))
        self.turn()

    def complete(self, completion: Completion) -> None:
        """An operation ended."""
        self._inbox.append(completion)
        self.turn()

    def children_ended(
        self, children: Iterable[tuple[str, Child]], savings: Iterable[asyncio.Future[None]] = ()
    ) -> None:
        """Children have ended, each of the operation beside it: heard in one turn. `savings` save their ends."""
        if self.ended:
            return
        for saving in savings:
            self.ledger.heard(saving)
        self._in_turn = True
        try:
            for operation, child in children:
                effects.child_ended(self, operation, child)
        finally:
            self._in_turn = False
        self.turn()

    def when_durable(self, effect: Callable[[], None]) -> None:
        """Do `effect` as soon as everything decided before it is on disk."""
        if self.ledger.is_durable and not self.home.is_draining:
            effect()
        else:
            self._gated.append(effect)

    @property
    def has_gated(self) -> bool:
        """Whether effects wait for what was decided before them."""
        return bool(self._gated)

    # Turns

    def turn(self) -> None:
        """Do everything there is to do now, a part of it at a time where that is much; safe to call from within."""
        if self._in_turn or self.ended or self.is_leaving or not self.is_live:
            return
        self._in_turn = True
        try:
            done = 0
            while done < TURN_LIMIT and self._do_next():
                done += 1
            if done == TURN_LIMIT:
                self._work_on()
                asyncio.get_running_loop().call_soon(self.when_durable, self.turn)
            elif self.driver.outcome is not None:
                # A row that is written before the end must not say that it waits: after a crash nothing would wake it.
                self.is_at_rest, self.status = False, self._status_at_work()
                ending.finish(self, self.driver.outcome)
            else:
                self._settle(was_busy=done > 0)
        except Exception as error:  # noqa: BLE001 - whatever it is, the run must not be left in memory as it is
            self.put_aside(error)
            return
        finally:
            self._in_turn = False
        if self.is_at_rest and self._sleeps_long():
            self.home.let_go(self)
        self.ledger.flush()

    def put_aside(self, error: Exception) -> None:
        """We have a defect, or code of somebody else's that we call has: load the run again, rather than leave it."""
        logger.error("run %s is put aside", self.run.id, exc_info=error)
        self.home.run_lost(self, error)

    def _sleeps_long(self) -> bool:
        pending = self.driver.pending
        if (
            self.ended
            or self.lingers
            or len(pending) > FEW
            or any(each.operation.kind not in SLEEPS for each in pending.values())
        ):
            return False
        wake_at = self.wake_at()
        return wake_at is not None and wake_at - self.clock_micros() > self.home.long_micros

    def _do_next(self) -> bool:
        driver = self.driver
        if driver.begun:
            begun, driver.begun = driver.begun, []
            for pending in begun:
                if driver.pending.get(pending.path) is pending:
                    effects.begin(self, pending)
        elif driver.cancellations:
            pending = driver.cancellations.pop()
            if driver.pending.get(pending.path) is pending:
                effects.stop(self, pending)
        elif driver.withdrawn:
            effects.forget(self, driver.withdrawn.pop())
        elif self._inbox and self.transaction is None and driver.outcome is None:
            item = self._inbox.popleft()
            if isinstance(item, CancelRequest):
                self.cancel(item)
            else:
                self._deliver(item)
        elif self.transactions and self.transaction is None and driver.outcome is None:
            self.transactions.pop(0)()
        else:
            return False
        return True

    def _deliver(self, completion: Completion) -> None:
        pending = completion.pending
        if self.driver.pending.get(pending.path) is not pending:
            effects.give_back(self, completion)
            return
        now = completion.ended_at or self.clock_micros()
        self.disarm(pending.path)
        if completion.on_delivery is not None:
            completion.on_delivery()
        if completion.position is None:
            if pending.cancelling is not None and completion.status == "failed":
                completion.meta = stopped(completion.meta)
            self.position += 1
            self.ledger.add(Write(APPEND_HISTORY, self.row_of(completion, self.position, now)))
        for write in completion.writes:
            self.ledger.add(write)
        if pending.operation.kind in TOLD_KINDS:
            self._tell_end(completion, now)
        if isinstance(pending.operation, WaitEvent):
            event_effects.delivered(self, completion)
        self.driver.deliver(pending.path, completion.outcome, now)

    def row_of(self, completion: Completion, position: int, now: int) -> HistoryRow:
        """The history's row of `completion`."""
        pending = completion.pending
        return HistoryRow(
            self.run.id,
            position,
            pending.path,
            pending.operation.kind,
            pending.operation.name,
            completion.status,
            completion.attempt,
            completion.started_at or pending.begun_at,
            now,
            completion.input,
            completion.output,
            completion.error,
            meta_of(completion),
        )

    def _tell_end(self, completion: Completion, now: int) -> None:
        pending, has_failed = completion.pending, completion.status != "completed"
        data: dict[str, Any] = {"started_at": completion.started_at or pending.begun_at}
        if has_failed:
            error = completion.outcome.error
            data["error"] = {"type": type(error).__name__, "message": message_of(error) if error is not None else ""}
        kind, what = STEP_FAILED if has_failed else STEP_COMPLETED, (pending.operation, pending.path)
        self.ledger.tell(self.teller.tell_step(kind, now, *what, completion.attempt, **data))

    def cancel(self, request: CancelRequest) -> None:
        """Cancel the run, unless it is cancelled, or undoes what it did, already."""
        if request.message is not None:
            self.ledger.add(Write(DELETE_MESSAGE, (self.run.id, request.message)))
        if self.is_cancelled or self.driver.undoing:
            return
        self.is_cancelled = True
        about = {"reason": request.reason, "failing": True} if self.driver.is_failing else {"reason": request.reason}
        self.cancel_reason = encode_json(about)
        now = self.mark(CANCEL_OPERATION, "cancel", "cancel", self.cancel_reason)
        self.driver.cancel(request.reason, now)

    def on_durable(self) -> None:
        """See `Holder`."""
        if self._gated and not self.home.is_draining:
            self._do_gated()
            if self.ended or self._gated or not self.ledger.is_durable:
                return  # it goes on
        # Also one that had something to tell others, and that has nothing else to do.
        if self._on_left is not None:
            self._on_left()
        elif self.status == "waiting":
            self.home.run_rests(self)

    def _do_gated(self) -> None:
        """Do what has waited for this, in a turn of its own: everything that it leads to is flushed together."""
        ready, self._gated = self._gated, []
        self._in_turn = True
        try:
            for effect in ready:
                effect()
        except Exception as error:  # noqa: BLE001 - see `turn`
            self.put_aside(error)
            return
        finally:
            self._in_turn = False
        self.turn()

    # The run's row

    def row(self) -> tuple[Any, ...]:
        """See `Holder`: the row of `UPDATE_RUN`, as of now. In the middle of a turn it has work to do."""
        run, rests = self.run, self.is_at_rest and not self._in_turn and not self.ended
        return (
            self.status if rests or self.ended else self._status_at_work(),
            None if self.ended or self.is_leaving else self.owner,
            NO_WAKES if self.ended else self.seen,
            self.wake_at() if rests else None,
            encode_json(wait_effects.waiting_for(self)) if rests else None,
            run.output,
            run.error,
            run.started_at,
            self.ended_at,
            run.tags,
            run.id,
        )

    def _status_at_work(self) -> str:
        return "cancelling" if self.is_cancelled else "running"

    def _settle(self, *, was_busy: bool) -> None:
        """At the end of a turn: say in the row, where it does not yet, whether it works or rests, and for what."""
        if self.running or self._gated:  # also where a transaction keeps others waiting
            self._work_on()
        elif was_busy or self._row_is_stale or not self.is_at_rest:
            before, self.is_at_rest = self.status, True
            self.status = "cancelling" if self.is_cancelled else "waiting"
            waits_before, self._waits = self._waits, self._few_waits()
            if self.is_cancelled or (before == self.status and self._waits in (waits_before, None)):
                self._row_is_due()
            else:
                waiting_for = wait_effects.waiting_for(self)
                self._row_is_due(self.teller.tell(RUN_WAITING, self.clock_micros(), waiting_for=waiting_for))

    def _work_on(self) -> None:
        """It has something to do, now or soon."""
        before, self.status = self.status, self._status_at_work()
        if self.is_at_rest or self._row_is_stale:
            self.is_at_rest = False
            resumed = self.teller.tell(RUN_RESUMED, self.clock_micros()) if before == "waiting" else None
            self._row_is_due(resumed)

    def _few_waits(self) -> frozenset[tuple[str, str]] | None:
        """What it waits for; of many waits None: nobody follows each of them."""
        pending = self.driver.pending
        if len(pending) > FEW:
            return None
        return frozenset((each.operation.kind, each.operation.name) for each in pending.values())

    def _row_is_due(self, event: EncodedEvent | None = None) -> None:
        self._row_is_stale = False
        self.ledger.row_is_due(event)

    def on_ended(self, saving: asyncio.Future[None]) -> None:
        """See `Holder`."""
        self.home.run_ended(self, saving)

    def on_lost(self, error: BaseException) -> None:
        """See `Holder`."""
        self.home.run_lost(self, error)

    def transacted(self, completion: Completion) -> None:
        """A transaction has ended, its row with it: it is delivered before anything else."""
        self.transaction = None
        self.running.pop(completion.pending.path, None)
        self._inbox.appendleft(completion)
        self.turn()


async def _nothing() -> None:
    """What a driver that is closed would start."""
