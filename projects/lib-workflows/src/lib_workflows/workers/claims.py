"""What is due and in nobody's memory, and taking it: reads first, and only what can be taken is asked for.

However many runs wait for a slot, none of them is looked at that cannot have one: each question here is for the rows of
one index.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, case, func, or_, select, true, tuple_, update

from lib_events.database import Connection
from lib_workflows.authoring.workflow import AnyWorkflow
from lib_workflows.queueing import slots as queue_slots
from lib_workflows.queueing import turns as queue_turns
from lib_workflows.runs.commands import RUNS_TOPIC
from lib_workflows.tables import runs

HAS_BEGUN = and_(runs.c.owner.is_(None), ~queue_slots.IS_QUEUED)


class Capability(NamedTuple):
    """Which runs a process can run: the versions it holds, and the queues it serves (None: every queue).

    What a workflow requires of its worker is known where it is held: a worker that lacks a tag does not count it as
    held, and the claim need not ask.
    """

    held: Sequence[tuple[str, int]]
    queues: Collection[str] | None = None

    @classmethod
    def of(cls, workflows: Iterable[AnyWorkflow], queues: Collection[str] | None, tags: frozenset[str]) -> "Capability":
        """Of a process that holds `workflows` and has `tags`."""
        return cls([(entry.name, entry.version) for entry in workflows if entry.requires <= tags], queues)

    def includes(self, workflow: str, version: int, queue: str) -> bool:
        """Whether it can run such a run."""
        return (workflow, version) in self.held and (self.queues is None or queue in self.queues)

    def claimable(self) -> ColumnElement[bool]:
        """Which runs it may take that nobody has in memory.

        As expressions that no index answers: nearly all runs are such, and who asks says which few are meant.
        """
        is_free = func.coalesce(runs.c.owner, "") == ""  # also where a kind of them says so: two must never have one
        can_run = tuple_(runs.c.workflow.concat(""), runs.c.version).in_(self.held)
        serves = true() if self.queues is None else runs.c.queue.in_(self.queues)
        return and_(is_free, runs.c.status != "nondeterministic", can_run, serves)


class Claimed(NamedTuple):
    """How a run was when it was claimed."""

    begins: bool  # it has never run
    queued: bool  # nobody was at it


class Taken(NamedTuple):
    """What a life has claimed."""

    runs: dict[str, Claimed]
    more: bool  # whether more may be due than there was room for
    is_paced: bool  # whether to look when the next ones may begin, for a rate says so, or it was not looked at all keys


type Take = Callable[[int], Sequence[Any]]  # finds and locks at most so many due runs


def claim(
    connection: Connection,
    owner: str,
    capability: Capability,
    *,
    now: int,
    limit: int,
    freed: Collection[str] | None = None,
) -> Taken:
    """Take runs that are due and that nobody has in memory; with `freed` only those that begin in these queues."""
    claimable = capability.claimable()
    due = select(runs.c.id, runs.c.status, runs.c.started_at).where(claimable, runs.c.wake_at + 0 <= now)
    due = due.order_by(runs.c.priority.desc(), runs.c.wake_at).with_for_update(skip_locked=True)
    # First, for the queues' rows come before any run's.
    openings = queue_slots.openings(connection, claimable, now, lock=True, among=freed)
    takes: list[Take] = [partial(queue_turns.take_slots, connection, due, opening, now) for opening in openings]
    found: list[Any] = []
    if freed is None:
        *first, unlimited = _without_slots(connection, now)
        for kind in first:
            found += _some(connection, due.where(kind), limit - len(found))
        _hold(connection, owner, found, now)  # so that no queue counts them, too
        takes.append(partial(_some, connection, due.where(unlimited)))
    taken, more = _share_out(takes, limit - len(found), first=now)
    slotted, free = list(chain(*taken[: len(openings)])), list(chain(*taken[len(openings) :]))
    _hold(connection, owner, slotted, now, slot=runs.c.queue)
    _hold(connection, owner, free, now)
    is_paced = any(
        (rows and opening.is_paced) or len(rows) >= queue_turns.MOST_TURNS
        for opening, rows in zip(openings, taken, strict=False)
    )
    if freed and not slotted:
        left = _openings(connection, true(), now, freed)
        is_paced = any(opening.next_at is not None for opening in left)
        if any(opening.slots != 0 for opening in left):  # for runs that this worker cannot take
            connection.notify(RUNS_TOPIC)
    claimed = (*found, *slotted, *free)
    return Taken(
        {row.id: Claimed(begins=row.started_at is None, queued=row.status == "queued") for row in claimed},
        more,
        is_paced,
    )


def _some(connection: Connection, due: Select[Any], limit: int) -> Sequence[Any]:
    return connection.execute(due.limit(limit)).all() if limit > 0 else ()


def _share_out(takes: Sequence[Take], limit: int, *, first: int) -> tuple[list[Sequence[Any]], bool]:
    """Let each take its share, another one first each time; returns what each took, and whether one wanted more."""
    taken: list[Sequence[Any]] = [()] * len(takes)
    more = False
    for left in range(len(takes), 0, -1):
        index = (first + left) % len(takes)
        share = -(-limit // left)
        taken[index] = takes[index](share) if share > 0 else ()
        limit -= len(taken[index])
        more = more or len(taken[index]) >= share
    return taken, more


def _openings(
    connection: Connection, claimable: ColumnElement[bool], now: int, among: Collection[str] | None = None
) -> list[queue_slots.Opening]:
    """The limited queues in which runs are due, for who only looks."""
    found = queue_slots.openings(connection, claimable, now, among=among)
    return [queue_turns.as_seen(connection, opening, now) for opening in found]


def _hold(connection: Connection, owner: str, rows: Sequence[Any], now: int, **values: Any) -> None:
    """Say in the rows of runs who has them in memory."""
    if not rows:
        return
    status = case((runs.c.status == "cancelling", runs.c.status), else_="running")
    started_at = case((runs.c.started_at.is_(None), now), else_=runs.c.started_at)
    values |= {"owner": owner, "status": status, "wake_at": None, "waiting_for": None, "started_at": started_at}
    connection.execute(update(runs).where(runs.c.id.in_([row.id for row in rows])).values(**values))


def _without_slots(connection: Connection, now: int) -> tuple[ColumnElement[bool], ...]:
    """The kinds of runs that need no slot: those that have begun, that go on as new, that are too late, and all others
    of queues that are not limited, last. Each is what an index holds.
    """
    has_begun = and_(HAS_BEGUN, runs.c.wake_at <= now)
    is_late = and_(queue_slots.NEEDS_SLOT, runs.c.deadline_at <= now)
    return has_begun, queue_slots.goes_on(), is_late, queue_slots.is_unlimited(connection, now)


class Due(NamedTuple):
    """What there is to do at some moment."""

    here: list[tuple[str, int]]  # runs of this life that a message or a timer has made due, with their wakes
    free: bool  # whether there are due runs that nobody has in memory
    next_at: int | None  # when the next run is due that nobody has in memory
    limited: frozenset[str]  # the queues whose runs do not begin as they come


def look(connection: Connection, owner: str, capability: Capability, now: int) -> Due:
    """Look what is due: reads only, so an idle engine writes nothing."""
    mine = select(runs.c.id, runs.c.wakes).where(runs.c.owner == owner, runs.c.wake_at <= now, ~queue_slots.IS_QUEUED)
    here = [(row.id, row.wakes) for row in connection.execute(mine)]
    claimable = capability.claimable()
    limited = queue_slots.governed(connection)
    openings = _openings(connection, claimable, now) if limited else []
    is_free = any(opening.slots != 0 for opening in openings) or _is_any_due(connection, claimable, now)
    moments = [*_later(connection, claimable, now), *(opening.next_at for opening in openings)]
    return Due(here, is_free, min((at for at in moments if at is not None), default=None), limited)


def _is_any_due(connection: Connection, claimable: ColumnElement[bool], now: int) -> bool:
    due = and_(claimable, runs.c.wake_at + 0 <= now)
    each = (select(runs.c.id).where(due, kind).exists() for kind in _without_slots(connection, now))
    return bool(connection.scalar(select(or_(*each))))


def _later(connection: Connection, claimable: ColumnElement[bool], now: int) -> Sequence[int | None]:
    """When the next run is due, of those that have begun and of those that have not."""
    first = select(runs.c.wake_at).where(claimable, runs.c.wake_at > now).order_by(runs.c.wake_at).limit(1)
    each = (first.where(kind).scalar_subquery() for kind in (HAS_BEGUN, queue_slots.IS_QUEUED))
    return connection.execute(select(*each)).one()
