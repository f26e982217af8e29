"""What the code declares beside its workflows, and whose word holds where several releases live: the newest one's.

While a release is deployed step by step it lives beside the one before. A worker of the older one that starts then must
not take back what starts workflows and limits queues: a trigger that is gone for a moment has missed its events. Which
release is the newer one is told by the order in which a database has first seen what they declare.
"""

import asyncio
import hashlib
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import and_, func, insert, select, update

from lib_events.clock import Clock
from lib_events.database import Connection, Database
from lib_events.lifecycle import Loop
from lib_workflows.authoring.queue import QueueLimits
from lib_workflows.authoring.workflow import AnyWorkflow, Registry
from lib_workflows.events.matcher import declare_triggers, hold_matcher
from lib_workflows.queueing.commands import declare_limits
from lib_workflows.queueing.queues import Queues
from lib_workflows.scheduling.commands import declare_schedules
from lib_workflows.tables import declarations, workers
from lib_workflows.values.codec import decode_json, encode_json

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 60.0  # after the last worker of a newer release has left: it may only be starting again


class Declared(NamedTuple):
    """What one process declares."""

    workflows: Sequence[AnyWorkflow]  # the newest version of each name
    limits: Mapping[str, QueueLimits | None]  # of their queues; None: the code says nothing of that queue

    @classmethod
    def by(cls, registry: Registry) -> "Declared":
        """What the workflows of a registry declare."""
        workflows = registry.newest()
        limits = {entry.queue: entry.limits for entry in sorted(workflows, key=lambda entry: entry.limits is not None)}
        return cls(workflows, limits)

    def without(self, subjects: Collection[str]) -> "Declared":
        """The same, but for these subjects."""
        workflows = [entry for entry in self.workflows if _workflow(entry.name) not in subjects]
        return Declared(workflows, {name: each for name, each in self.limits.items() if _queue(name) not in subjects})

    def digests(self) -> Mapping[str, str]:
        """By its subject, what tells a declaration from every other one."""
        return {subject: hashlib.sha256(encode_json(content).encode()).hexdigest() for subject, content in self._each()}

    def _each(self) -> Iterator[tuple[str, object]]:
        for entry in self.workflows:
            triggers = sorted(trigger.name for trigger in entry.on)
            starts = [entry.version, entry.queue, entry.queue_key, entry.takes_input] if triggers else []
            if triggers and entry.deadline is not None:
                starts.append(repr(entry.deadline))
            if entry.batch is not None:
                starts.append(repr(entry.batch))
            schedule = entry.schedule and entry.schedule.as_json()
            yield _workflow(entry.name), [triggers, starts, schedule]
        for name, limits in self.limits.items():
            yield _queue(name), limits and repr(limits)


def _workflow(name: str) -> str:
    return f"workflow {name}"


def _queue(name: str) -> str:
    return f"queue {name}"


type Numbers = Mapping[str, int]  # by subject: later ones are of newer releases


class Declarations(Loop):
    """Those of one process: made as it begins, and again once the newer ones of others have gone for good."""

    def __init__(
        self, database: Database, registry: Registry, queues: Queues, *, clock: Clock, look_seconds: float
    ) -> None:
        super().__init__(name="declarations")
        self._database = database
        self._queues = queues
        self._clock = clock
        self._look_seconds = look_seconds
        self._declared = Declared.by(registry)
        self._numbers: Numbers = {}
        self._free_since: dict[str, float] = {}  # subjects where the word is that of a release of which nobody lives

    async def number(self) -> Sequence[int]:
        """Find where these declarations come among those of all releases; a worker's row says what it declares."""
        self._numbers = await self._database.transact(_number, self._declared.digests())
        return sorted(self._numbers.values())

    async def declare(self, *, works: bool) -> None:
        """Make what starts workflows and limits queues that of this code, but for what a newer release declares.

        Who only takes commands has a say in nothing that a worker declares.
        """
        outranked = await self._declare(self._declared, works=works)
        for subject in sorted(outranked):
            logger.info("the declaration of %s stays that of a newer release, whose workers live", subject)

    async def run(self) -> None:
        """Look whether what newer releases declared has nobody any more who does."""
        while True:
            await self.pause(self._look_seconds)
            free, now = await self._database.read(_free, self._numbers), asyncio.get_running_loop().time()
            self._free_since = {subject: self._free_since.get(subject, now) for subject in free}
            left = {each for each, since in self._free_since.items() if now - since >= PATIENCE_SECONDS}
            if left:
                await self._declare(self._declared.without(self._numbers.keys() - left))
                logger.warning("no worker lives of the release that declared %s: it is as declared here", sorted(left))

    async def _declare(self, declared: Declared, *, works: bool = True) -> frozenset[str]:
        limited = [name for name, limits in declared.limits.items() if limits is not None]
        async with self._queues.limiting(limited):
            return await self._database.transact(_declare, declared, self._numbers, works, self._clock.micros())


def _number(connection: Connection, digests: Mapping[str, str]) -> Numbers:
    hold_matcher(connection)  # whoever else begins now waits
    known = _known(connection, digests)
    new = [
        {"subject": subject, "digest": digest, "in_force": False}
        for subject, digest in digests.items()
        if subject not in known
    ]
    if new:
        connection.execute(insert(declarations), new)
    return _known(connection, digests)


def _known(connection: Connection, digests: Mapping[str, str]) -> Numbers:
    rows = connection.execute(select(declarations).where(declarations.c.subject.in_(digests)))
    return {row.subject: row.number for row in rows if row.digest == digests[row.subject]}


def _declare(
    connection: Connection,
    declared: Declared,
    numbers: Numbers,
    works: bool,  # noqa: FBT001 - transaction functions take no keywords
    now: int,
) -> frozenset[str]:
    hold_matcher(connection)  # so that of several who begin at once each sees those before it
    outranked = _outranked(connection, numbers if works else {})
    mine = declared.without(outranked)
    declare_triggers(connection, mine.workflows)
    declare_schedules(connection, mine.workflows, now)
    declare_limits(connection, mine.limits, now)
    made = mine.digests().keys()
    in_force = declarations.c.number.in_([numbers[subject] for subject in made])
    connection.execute(update(declarations).where(declarations.c.subject.in_(made)).values(in_force=in_force))
    return outranked


def _free(connection: Connection, numbers: Numbers) -> frozenset[str]:
    """The subjects of which another declaration is in force than these, and nobody lives who declares a newer one."""
    others = and_(declarations.c.in_force, declarations.c.number.not_in(numbers.values()))
    found = connection.scalars(select(declarations.c.subject).where(others, declarations.c.subject.in_(numbers)))
    return frozenset(found) - _outranked(connection, numbers)


def _outranked(connection: Connection, numbers: Numbers) -> frozenset[str]:
    """The subjects of which a worker that lives declares something newer than what has these numbers, or none."""
    alive = [text for text in connection.scalars(select(workers.c.declares)) if text]
    said = {number for text in alive for number in decode_json(text)}
    newest = select(declarations.c.subject, func.max(declarations.c.number).label("number"))
    newest = newest.where(declarations.c.number.in_(said)).group_by(declarations.c.subject)
    return frozenset(row.subject for row in connection.execute(newest) if row.number > numbers.get(row.subject, 0))
