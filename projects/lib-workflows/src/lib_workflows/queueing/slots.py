"""Which runs of limited queues may begin: a run takes a slot of its queue when it is claimed, and has it to its end.

A slot is nothing but the run's own row, which says so until it says that the run has ended. So there is no counter
that could be wrong after a crash, and none that somebody has to give back. Whoever claims holds the queue's row, so
that two workers cannot both take the last slot.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, exists, func, literal, literal_column, or_, select, update

from lib_events.clock import MICROSECOND
from lib_events.database import Connection
from lib_workflows.authoring.queue import MOST_RUNS, Rate
from lib_workflows.tables import queues, runs

MOST_QUEUES = 10_000  # in one look
IS_GOVERNED = or_(queues.c.paused, *(queues.c[name].is_not(None) for name in ("concurrency", "rate", "key")))
HAS_SLOT = and_(runs.c.slot.is_not(None), runs.c.ended_at.is_(None), runs.c.status != "nondeterministic")
# As a literal, so that the indexes of just those are used.
IS_QUEUED = runs.c.status == literal_column("'queued'")
NEEDS_SLOT = and_(IS_QUEUED, runs.c.slot.is_(None))


class Opening(NamedTuple):
    """A limited queue in which runs are due: how many may begin now."""

    queue: Any  # its row
    slots: int | None  # None: any number
    next_at: int | None  # when its rate lets the next one begin; None: a run has to end

    @property
    def is_paced(self) -> bool:
        """Whether a rate says when the next ones begin."""
        return self.queue.rate is not None or self.queue.rate_per_key is not None


def governed(connection: Connection) -> frozenset[str]:
    """The queues whose runs do not begin as they come: paused or limited ones."""
    return frozenset(connection.scalars(select(queues.c.name).where(IS_GOVERNED)))


def goes_on() -> ColumnElement[bool]:
    """Whether a run goes on as new in the slot that it has."""
    return and_(IS_QUEUED, HAS_SLOT, runs.c.slot.in_(select(queues.c.name)))


def is_unlimited(connection: Connection, now: int) -> ColumnElement[bool]:
    """Whether a run has not begun, its time has come, and its queue is not limited."""
    limited = select(queues.c.name).where(IS_GOVERNED)
    if connection.scalar(limited.limit(1)) is None:
        return and_(NEEDS_SLOT, runs.c.wake_at <= now, runs.c.queue.not_in(limited))
    # Queue by queue: whoever waits for a slot is not looked at.
    names = distinct(runs.c.queue, IS_QUEUED)
    free = names.where(names.selected_columns[0].not_in(limited)).limit(MOST_QUEUES + 1)
    found = connection.scalars(free).all()
    if len(found) > MOST_QUEUES:  # so many that passing those by who wait for a slot costs less, and none is left out
        return and_(NEEDS_SLOT, runs.c.wake_at <= now, runs.c.queue.not_in(limited))
    return and_(NEEDS_SLOT, runs.c.queue.in_(found))


def needs_slot_of_limited() -> ColumnElement[bool]:
    """Whether a run has not begun and its queue is limited."""
    return and_(NEEDS_SLOT, exists().where(queues.c.name == runs.c.queue, IS_GOVERNED))


def distinct(column: ColumnElement[Any], where: ColumnElement[bool], most: int = MOST_RUNS) -> Select[Any]:
    """The first distinct values of an index's column, in its order: one step for each, however many rows have it."""
    first = select(column).where(where).order_by(column).limit(1)
    found = select(first.scalar_subquery().label("value"), literal(1).label("number")).cte(recursive=True)
    following = first.where(column > found.c.value).scalar_subquery()
    is_enough = found.c.number >= most
    found = found.union_all(select(following, found.c.number + 1).where(found.c.value.is_not(None), ~is_enough))
    return select(found.c.value).where(found.c.value.is_not(None))


def openings(
    connection: Connection,
    claimable: ColumnElement[bool],
    now: int,
    *,
    lock: bool = False,
    among: Collection[str] | None = None,
) -> list[Opening]:
    """The limited queues (of all, or `among` some) in which runs are due that may be claimed.

    With `lock`, nobody else takes slots of them.
    """
    due = select(runs.c.id).where(runs.c.queue == queues.c.name, NEEDS_SLOT, runs.c.wake_at + 0 <= now, claimable)
    is_due = due.limit(1).scalar_subquery().is_not(None)  # one step on the index, where `EXISTS` would become a join
    query = select(queues).where(IS_GOVERNED, ~queues.c.paused, is_due).order_by(queues.c.name)
    query = query if among is None else query.where(queues.c.name.in_(among))
    rows = connection.execute(query.with_for_update(of=queues) if lock else query).all()
    taken = _taken(connection, [row.name for row in rows if row.concurrency is not None])
    return [_opening(row, taken.get(row.name, 0), now) for row in rows]


def _taken(connection: Connection, names: Sequence[str]) -> dict[str, int]:
    if not names:
        return {}
    counted = select(runs.c.slot, func.count().label("size")).where(runs.c.slot.in_(names), HAS_SLOT)
    return {row.slot: row.size for row in connection.execute(counted.group_by(runs.c.slot))}


def _opening(row: Any, taken: int, now: int) -> Opening:
    rate = rate_of(row)
    slots = max(0, row.concurrency - taken) if row.concurrency is not None else None
    allowed = rate.allowed(row.full_at, now) if rate is not None else None
    next_at = rate.next_at(row.full_at) if rate is not None and allowed == 0 and slots != 0 else None
    return Opening(row, min((found for found in (slots, allowed) if found is not None), default=None), next_at)


def rate_of(row: Any) -> Rate | None:
    """The rate of a row of `queues`."""
    return None if row.rate is None else Rate(row.rate, row.rate_micros * MICROSECOND)


def rate_per_key_of(row: Any) -> Rate | None:
    """The rate of each key of a row of `queues`."""
    return None if row.rate_per_key is None else Rate(row.rate_per_key, row.rate_per_key_micros * MICROSECOND)


def count_in(connection: Connection, queue: str, limit: int) -> int:
    """Give slots to runs of the queue that are under way and have none; returns how many, at most `limit`."""
    under_way = (runs.c.ended_at.is_(None), runs.c.status.not_in(("queued", "nondeterministic")))
    found = select(runs.c.id).where(runs.c.queue == queue, runs.c.slot.is_(None), *under_way).limit(limit)
    return connection.execute(update(runs).where(runs.c.id.in_(found)).values(slot=queue)).rowcount
