"""Which runs of limited queues may begin: a run takes a slot of its queue when it is claimed, and has it to its end.

A slot is nothing but the run's own row, which says so until it says that the run has ended. So there is no counter
that could be wrong after a crash, and none that somebody has to give back. Whoever claims holds the queue's row, so
that two workers cannot both take the last slot.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, exists, func, literal_column, or_, select, update

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
    names = _distinct(runs.c.queue, IS_QUEUED)
    free = names.where(names.selected_columns[0].not_in(limited)).limit(MOST_QUEUES + 1)
    found = connection.scalars(free).all()
    if len(found) > MOST_QUEUES:  # so many that passing those by who wait for a slot costs less, and none is left out
        return and_(NEEDS_SLOT, runs.c.wake_at <= now, runs.c.queue.not_in(limited))
    return and_(NEEDS_SLOT, runs.c.queue.in_(found))


def needs_slot_of_limited() -> ColumnElement[bool]:
    """Whether a run has not begun and its queue is limited."""
    return and_(NEEDS_SLOT, exists().where(queues.c.name == runs.c.queue, IS_GOVERNED))


def _distinct(column: ColumnElement[Any], where: ColumnElement[bool]) -> Select[Any]:
    """The distinct values of an index's column, in its order: one step on it for each, however many rows have it."""
    first = select(column).where(where).order_by(column).limit(1)
    found = select(first.scalar_subquery().label("value")).cte(recursive=True)
    following = first.where(column > found.c.value).scalar_subquery()
    found = found.union_all(select(following).where(found.c.value.is_not(None)))
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


def take_slots(connection: Connection, due: Select[Any], opening: Opening, now: int, limit: int) -> Sequence[Any]:
    """Find due runs of the queue that may have its slots, which `due` selects and locks; returns their rows."""
    queue = opening.queue
    limit = limit if opening.slots is None else min(limit, opening.slots)
    mine = due.where(runs.c.queue == queue.name, NEEDS_SLOT)
    if queue.key is None:
        rows, last_key = connection.execute(mine.limit(limit)).all(), None
    else:
        rows, last_key = take_turns(connection, mine, queue, now=now, limit=limit)
    if not rows:
        return rows
    rate = rate_of(queue)
    full_at = queue.full_at if rate is None else rate.full_after(len(rows), queue.full_at, now)
    if (full_at, last_key) != (queue.full_at, queue.last_key):
        changes = {"full_at": full_at, "last_key": last_key}
        connection.execute(update(queues).where(queues.c.name == queue.name).values(changes))
    return rows


# Taking turns


def take_turns(
    connection: Connection, due: Select[Any], queue: Any, *, now: int, limit: int
) -> tuple[Sequence[Any], str | None]:
    """The first due runs of each key, one key after the other, going on behind whose turn was last.

    Returns their rows, and whose turn is last now.
    """
    under_way, most = _under_way_by_key(connection, queue), _most(queue)
    full = sum(size >= most for size in under_way.values())
    found = islice(_waiting_keys(connection, queue, now, limit + full), limit + full)
    waiting = [key for key in found if under_way.get(key, 0) < most]
    rows: list[Any] = []
    last: str | None = queue.last_key
    for index, key in enumerate(waiting):
        share = max(1, (limit - len(rows)) // (len(waiting) - index))
        wanted = min(share, limit - len(rows), most - under_way.get(key, 0))
        if wanted <= 0:
            break
        # IS NULL where there is no key. Not IS NOT DISTINCT FROM: PostgreSQL asks no index for it.
        of_key = runs.c.queue_key == key
        rows += connection.execute(due.where(of_key).limit(wanted)).all()
        last = key
    return rows, last


def _most(queue: Any) -> int:
    return MOST_RUNS if queue.per_key is None else int(queue.per_key)


def _under_way_by_key(connection: Connection, queue: Any) -> dict[str | None, int]:
    if queue.per_key is None:
        return {}
    counted = select(runs.c.queue_key, func.count().label("size")).where(runs.c.slot == queue.name, HAS_SLOT)
    return {row.queue_key: row.size for row in connection.execute(counted.group_by(runs.c.queue_key))}


def _waiting_keys(connection: Connection, queue: Any, now: int, limit: int) -> Iterator[str | None]:
    """The keys of which runs are due, beginning behind whose turn was last; None for those without one."""
    waits = and_(runs.c.queue == queue.name, NEEDS_SLOT, runs.c.wake_at <= now)
    has_key, last = runs.c.queue_key.is_not(None), queue.last_key
    behind = and_(waits, has_key) if last is None else and_(waits, has_key, runs.c.queue_key > last)
    yield from connection.scalars(_distinct(runs.c.queue_key, behind).limit(limit)).all()
    if connection.scalar(select(exists().where(waits, ~has_key))):
        yield None
    if last is not None:
        before = and_(waits, has_key, runs.c.queue_key <= last)
        yield from connection.scalars(_distinct(runs.c.queue_key, before).limit(limit)).all()


def count_in(connection: Connection, queue: str, limit: int) -> int:
    """Give slots to runs of the queue that are under way and have none; returns how many, at most `limit`."""
    under_way = (runs.c.ended_at.is_(None), runs.c.status.not_in(("queued", "nondeterministic")))
    found = select(runs.c.id).where(runs.c.queue == queue, runs.c.slot.is_(None), *under_way).limit(limit)
    return connection.execute(update(runs).where(runs.c.id.in_(found)).values(slot=queue)).rowcount
