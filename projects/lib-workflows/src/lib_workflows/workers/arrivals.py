"""How runs come into memory: what is due is looked for, claimed and loaded; what is here hears what came for it.

A message or a timer makes a run due in the database, a notification says to look, and a slow poll is the net
beneath.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from itertools import batched
from typing import TYPE_CHECKING, Any

from lib_events.database import Fenced
from lib_events.lifecycle import Loop
from lib_events.statement import Fence
from lib_workflows.execution.executor import Executor
from lib_workflows.queueing.slots import governed
from lib_workflows.runs.commands import RUNS_TOPIC
from lib_workflows.runs.record import Child, News, RunRecord, Stored, is_child_of, load, load_new, refresh
from lib_workflows.workers.claims import Capability, Claimed, Taken, claim, look
from lib_workflows.workers.doubt import Doubt
from lib_workflows.workers.reloads import Reloads
from lib_workflows.workers.worker import held_runs

if TYPE_CHECKING:
    from lib_workflows.workers.residence import Residence

logger = logging.getLogger(__name__)

POLL_SECONDS = 5.0  # the slow poll beneath the notifications
CLAIM_LIMIT = 500
TELL_LIMIT = 500
FEW_RUNS = 20  # that begin: so few rows are looked for at once
NOT_CLAIMED = Claimed(begins=False, queued=False)


class Arrivals(Loop):
    """Looks whenever something may be due, and brings it into memory."""

    def __init__(
        self, residence: "Residence", queues: Collection[str] | None, tags: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(name="workflow engine")
        self.loading: dict[str, list[tuple[str, Child]]] = {}  # by run: its children that ended meanwhile
        self.capability = Capability.of(residence.registry.workflows, queues, tags)
        self.limited: frozenset[str] = frozenset()  # queues whose runs do not begin as they come
        self.doubt = Doubt(self.wake)
        self._residence = residence
        self._reloads = Reloads()
        self._refreshing: dict[str, bool] = {}  # by run: whether something came after it was asked for
        self._next_look_at: int | None = None
        self._look_by = 0.0  # by the event loop's time: woken or not, it looks then
        self._freed: set[str] = set()  # limited queues of which a run has just ended here
        self._learned = 0

    def wake(self) -> None:
        """Look at once, whatever may be due."""
        self._look_by = 0.0
        super().wake()

    def slot_came_free(self, queue: str) -> None:
        """Let the next runs of a limited queue begin: a run of it has ended, and nothing else need be looked for."""
        self._freed.add(queue)
        super().wake()

    async def run(self) -> None:
        """Look, then pause until woken, or for the slow poll."""
        home = self._residence
        unsubscribe = home.database.on_notify(RUNS_TOPIC, self.wake)
        self._look_by = 0.0
        try:
            while True:
                owner = home.worker_id
                try:
                    if self._is_to_look:
                        self._look_by = asyncio.get_running_loop().time() + POLL_SECONDS
                        await self._look()
                    await self._fill_slots()
                except Fenced:
                    home.fenced(owner)
                home.evict_idle()
                await self.pause(POLL_SECONDS)
        finally:
            unsubscribe()

    # What is due

    @property
    def _is_to_look(self) -> bool:
        return asyncio.get_running_loop().time() >= self._look_by

    async def _look(self) -> None:
        """Tell runs in memory what came for them, and take runs that are due and in nobody's memory."""
        home = self._residence
        if home.is_lost:
            return
        # Owner and fence of one life: this one may end, and another begin, while we wait.
        now, owner, fence = home.timers.clock.micros(), home.worker_id, home.fence
        learned = self._learned
        due = await home.database.read(look, owner, self.capability, now)
        if learned == self._learned:
            self.limited = due.limited
        told = [executor for run_id, wakes in due.here if (executor := self._to_tell(run_id, wakes)) is not None]
        for executors in batched(told, TELL_LIMIT, strict=False):
            home.spawn(self._refresh(executors))
        if self.doubt.is_open:
            await self._find_strays(owner)
        if due.free:
            await self._take(owner, fence)
        if due.next_at is not None:
            self.look_at(due.next_at)

    async def _fill_slots(self) -> None:
        """Take the next runs of queues of which a slot came free."""
        home = self._residence
        freed, self._freed = frozenset(self._freed), set()
        if freed and not home.is_lost:
            await self._take(home.worker_id, home.fence, freed)

    async def _take(self, owner: str, fence: Fence | None, freed: frozenset[str] | None = None) -> None:
        """Claim what there is room for, and load it.

        As runs end there may be room on and on: what comes meanwhile has its look, and its turn.
        """
        home, more = self._residence, True
        while more and home.room:
            now = home.timers.clock.micros()
            limit = min(CLAIM_LIMIT, home.room)
            with self.doubt.about_commit():
                taken = await home.database.transact(self._claim, owner, now, limit, freed, fence=fence)
            if taken.runs:
                await self._load(list(taken.runs), taken.runs)
            if taken.is_paced:
                self.wake()  # to look when the rate lets the next ones begin
            more = taken.more
            if self._is_to_look:
                break
        if more and not home.room:
            home.make_room(self.wake)

    async def learn_limits(self) -> None:
        """Know at once which queues are limited: no run of theirs begins past its queue."""
        self._learned += 1  # a look that is under way may have seen them as they were
        self.limited = await self._residence.database.read(governed)

    async def _find_strays(self, owner: str) -> None:
        """Load what this life holds and does not know of."""
        home = self._residence
        before = {*home.executors, *self.loading}
        held = await home.database.read(held_runs, owner)
        # Neither what has ended while we looked, nor what has begun.
        known = before.union(home.executors, self.loading)
        strays = [run_id for run_id in held if run_id not in known]
        if strays:
            await self._load(strays, {})

    def _claim(self, connection: Any, owner: str, now: int, limit: int, freed: frozenset[str] | None) -> Taken:
        return claim(connection, owner, self.capability, now=now, limit=limit, freed=freed)

    def look_at(self, at: int) -> None:
        """Look again when that time has come (micros), if not before."""
        if self._next_look_at is not None and self._next_look_at <= at:
            return
        self._next_look_at = at

        def look_again() -> None:
            if self._next_look_at == at:
                self._next_look_at = None
            self.wake()

        self._residence.timers.add(at, look_again)

    # What came for a run in memory

    def _to_tell(self, run_id: str, wakes: int) -> Executor | None:
        """Return the run if it is to hear what came for it, and nobody has asked for that yet."""
        executor = self._residence.executors.get(run_id)
        if executor is None:
            self._load_one(run_id)
        elif executor.is_leaving:
            executor.when_left(self.wake)  # whoever takes it next hears of it
        elif wakes > executor.seen and run_id in self._refreshing:
            self._refreshing[run_id] = True
        elif wakes > executor.seen:
            self._refreshing[run_id] = False
            return executor
        return None

    async def _refresh(self, executors: Sequence[Executor]) -> None:
        asked = {executor.run.id: (executor.seen, executor.stored.life) for executor in executors}
        try:
            news = await self._residence.database.read(refresh, asked)
        finally:
            more_came = [self._refreshing.pop(run_id, False) for run_id in asked]
            if any(more_came):
                self.wake()
        for executor in executors:
            self._hear(executor, news.get(executor.run.id))

    def _hear(self, executor: Executor, news: News | None) -> None:
        if news is None or executor.ended or self._residence.executors.get(executor.run.id) is not executor:
            self.wake()
        elif executor.is_leaving:
            executor.when_left(self.wake)
        else:
            executor.hear(news.messages, news.wakes)
            executor.children_ended([found for found in news.children.items() if found[1].has_ended])

    # Loading

    async def _load(self, run_ids: list[str], claimed: Mapping[str, Claimed]) -> None:
        """Bring runs that this life owns into memory."""
        home = self._residence
        for run_id in run_ids:
            self.loading[run_id] = []
        waking = [home.kinship.waking[run_id] for run_id in run_ids if run_id in home.kinship.waking]
        if waking:
            await asyncio.wait(waking)
        try:
            loaded = await self._read(run_ids, claimed)
        except Exception as error:  # noqa: BLE001 - they are ours now: nobody else will look after them
            for run_id in run_ids:
                self.loading.pop(run_id, None)
                self.load_again(run_id, error)
            return
        ended_children = {run_id: self.loading.pop(run_id, []) for run_id in run_ids}
        for record, stored in loaded:
            for operation, child in ended_children[record.id]:
                if is_child_of(child, record.id, operation, stored.life):
                    stored.children[operation] = child
            self._take_in(record, stored, claimed.get(record.id, NOT_CLAIMED))

    async def _read(self, run_ids: Sequence[str], claimed: Mapping[str, Claimed]) -> list[tuple[RunRecord, Stored]]:
        database = self._residence.database
        if not all(claimed.get(run_id, NOT_CLAIMED).begins for run_id in run_ids):
            return await database.read(load, run_ids)
        look_for = database.look if len(run_ids) <= FEW_RUNS else database.read
        return await look_for(load_new, run_ids)

    def _take_in(self, record: RunRecord, stored: Stored, was: Claimed) -> None:
        home = self._residence
        if record.owner is None:
            self.wake()  # it had just left when it was seen here: what came for it is still to be heard
        if record.owner != home.worker_id or not home.is_open or home.is_lost:
            return  # it was another life that took it
        # What was claimed was nobody's: one here has left, ended or gone on as new, and has not heard of it yet.
        if was is NOT_CLAIMED and record.id in home.executors:
            return
        home.forget(record.id)
        stored.claimed, stored.queued = was.begins, was.queued and (was.begins or stored.goes_on_anew)
        stored.resumed = not was.begins or bool(stored.history)
        try:
            home.take_in(record, stored)
        except Exception as error:  # one that cannot be loaded must not keep the others out
            logger.exception("run %s cannot be loaded", record.id)
            home.forget(record.id)
            self.load_again(record.id, error)

    def load_again(self, run_id: str, error: BaseException) -> None:
        """Forgotten after a failure, a run is loaded anew, after a while."""
        logger.warning("run %s is loaded again: %s", run_id, error)
        timers = self._residence.timers
        at = timers.clock.micros() + int(self._reloads.pause_seconds(run_id) * 1e6)
        timers.add(at, lambda: self._load_one(run_id))

    def _load_one(self, run_id: str) -> None:
        home = self._residence
        if home.is_open and run_id not in home.executors and run_id not in self.loading:
            home.spawn(self._load([run_id], {}))
