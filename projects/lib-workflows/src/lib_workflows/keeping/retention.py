"""How long runs are kept once they have ended: by age and by number, archived first where somebody wants that.

A run goes with everything under it: history, messages, updates, approvals, views, logs; and its id and idempotency
key mean nothing any more. One that has not ended is never touched, nor one that is parked, whose parent has not
ended, or that has children: those go first. Writing is never held up: each transaction takes a bounded piece away,
rows that no live run has.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from lib_events.clock import Clock, SystemClock
from lib_events.database import Connection, Database
from lib_events.lifecycle import Loop
from lib_workflows.errors import RunNotFound
from lib_workflows.keeping import pruning
from lib_workflows.keeping.archive import Archive
from lib_workflows.reading.history_export import export_whole_run
from lib_workflows.runs.state import TERMINAL

logger = logging.getLogger(__name__)

ROUND_SECONDS = 300.0
BREATH_SECONDS = 0.02  # between transactions
ARCHIVE_CHARACTERS = 4_000_000  # exported at once
ROLE = "run-retention"
FIRST = (-1, "")  # a place before every run


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPolicy:
    """Which ended runs to keep: those younger than `age`, and of them at most the last `runs`.

    `failed_age` is for failed ones; None: like the others. What ended within the last hour is always kept.
    """

    age: timedelta = timedelta(days=30)
    failed_age: timedelta | None = None
    runs: int | None = None
    archive: Archive | None = None

    def __post_init__(self) -> None:
        """Refuse what would take a run away from those who wait for its result."""
        for name, age in (("age", self.age), ("failed_age", self.failed_age)):
            if age is not None and age < pruning.YOUNGEST:
                raise ValueError(f"{name} of a retention policy must be an hour or more, got {age}")
        if self.runs is not None and self.runs < 1:
            raise ValueError(f"runs of a retention policy must be 1 or more, got {self.runs}")

    @property
    def ages(self) -> dict[str, timedelta]:
        """The age for each status."""
        failed = self.age if self.failed_age is None else self.failed_age
        return dict.fromkeys(TERMINAL, self.age) | {"failed": failed}


class RunRetention(Loop):
    """Prunes runs where this process leads in it."""

    def __init__(self, database: Database, policy: RetentionPolicy, *, clock: Clock | None = None) -> None:
        super().__init__(name="run retention")
        self._database = database
        self._policy = policy
        self._clock = clock or SystemClock()

    async def run(self) -> None:
        """Wait to lead, then prune now and then until the lead is lost."""
        async with self._database.leading(ROLE):
            while True:
                await self.prune()
                await self.pause(ROUND_SECONDS)

    async def prune(self) -> int:
        """Prune all there is to prune and return how many runs went."""
        pruned = await self._take_away()  # what a crash has left
        # A parent goes in the pass after its last child.
        while found := await self._pass():
            pruned += found
        if pruned:
            logger.info("pruned %d runs", pruned)
        return pruned

    async def _pass(self) -> int:
        policy = self._policy
        limits = await self._database.read(pruning.cutoffs, self._clock.micros(), policy.ages, policy.runs)
        pruned = 0
        for status, until in limits.items():
            after = FIRST
            while found := await self._database.read(pruning.look, status, until, after):
                after = (found[-1].ended_at, found[-1].id)
                pruned += await self._prune([run.id for run in found if run.is_free], until)
        return pruned

    async def _prune(self, run_ids: Sequence[str], until: int) -> int:
        if not run_ids:
            return 0
        await self._archive(run_ids)
        if not await self._database.transact(pruning.mark, run_ids, until):
            return 0
        return await self._take_away()

    async def _archive(self, run_ids: Sequence[str]) -> None:
        archive, waiting = self._policy.archive, run_ids
        while archive is not None and waiting:
            exported, waiting = await self._database.read(_export_some, waiting)
            await archive.keep(exported)

    async def _take_away(self) -> int:
        pruned = 0
        while (piece := await self._database.read(pruning.next_piece)) is not None:
            taken = await self._database.transact(pruning.take_away, piece)
            pruned += len(taken.runs)
            await asyncio.sleep(BREATH_SECONDS)
        return pruned


def _export_some(connection: Connection, run_ids: Sequence[str]) -> tuple[list[Mapping[str, Any]], Sequence[str]]:
    """Export runs, no more than fit into memory with ease; returns them and the ids of the others."""
    exported: list[Mapping[str, Any]] = []
    weight = 0
    for number, run_id in enumerate(run_ids):
        if weight > ARCHIVE_CHARACTERS:
            return exported, run_ids[number:]
        with contextlib.suppress(RunNotFound):
            exported.append(found := export_whole_run(connection, run_id))
            weight += sum(len(row[name] or "") for row in found["history"] for name in ("input", "output"))
    return exported, []
