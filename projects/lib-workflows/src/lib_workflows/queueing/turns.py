"""Which of a queue's due runs begin: the first ones, or those of each key in turn, as far as slots and rates let them.

A claim walks along the keys that wait, one step on an index for each, and passes those by that have as many runs under
way as they may, or no token. However many have none: it walks so far only, and the next one goes on behind. Nothing is
kept of who was passed by: what waits is what the runs' own rows say.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    Integer,
    Select,
    Subquery,
    Text,
    and_,
    bindparam,
    case,
    exists,
    func,
    not_,
    null,
    or_,
    select,
    update,
)

from lib_events.database import Connection
from lib_workflows.authoring.queue import MOST_RUNS, Rate
from lib_workflows.queueing import key_buckets
from lib_workflows.queueing.slots import HAS_SLOT, NEEDS_SLOT, Opening, distinct, rate_of, rate_per_key_of
from lib_workflows.tables import queues, runs

MOST_TURNS = 100  # keys in one claim: each costs a statement, and a transaction has little time
MOST_PASSED = 2_000  # keys without a token along which one claim walks
REST_MICROS = 1_000_000  # until who is behind them is looked for, where nothing else wakes


class Turns(NamedTuple):
    """Whose turn it is now."""

    ready: list[tuple[str | None, int]]  # keys, and how many runs of each may begin
    broken_off_at: str | None  # where none is ready: how far it was walked, if there may be more behind
    next_at: int | None  # where none is ready: when the first of those that were passed by has a token


class Passed(NamedTuple):
    """The keys along which a walk has led."""

    size: int
    last: str | None
    full_at: int | None  # of the first one without a token


def take_slots(connection: Connection, due: Select[Any], opening: Opening, now: int, limit: int) -> Sequence[Any]:
    """Find due runs of the queue that may have its slots, which `due` selects and locks; returns their rows."""
    queue = opening.queue
    limit = limit if opening.slots is None else min(limit, opening.slots)
    if limit == 0:
        return ()
    mine = due.where(runs.c.queue == queue.name, NEEDS_SLOT)
    if queue.key is None:
        rows, last_key = connection.execute(mine.limit(limit)).all(), None
    else:
        rows, last_key = take_turns(connection, mine, queue, now=now, limit=limit)
    rate = rate_of(queue)
    full_at = queue.full_at if rate is None or not rows else rate.full_after(len(rows), queue.full_at, now)
    if (full_at, last_key) != (queue.full_at, queue.last_key):
        changes = {"full_at": full_at, "last_key": last_key}
        connection.execute(update(queues).where(queues.c.name == queue.name).values(changes))
    return rows


def take_turns(
    connection: Connection, due: Select[Any], queue: Any, *, now: int, limit: int
) -> tuple[Sequence[Any], str | None]:
    """The first due runs of each key, one key after the other, going on behind whose turn was last.

    Returns their rows, and whose turn is last now.
    """
    turns = whose_turn(connection, queue, now=now, limit=min(limit, MOST_TURNS))
    # IS NULL where there is no key. Not IS NOT DISTINCT FROM: PostgreSQL asks no index for it.
    most = bindparam("most", type_=Integer)
    of_none, of_key = due.where(runs.c.queue_key.is_(None)), due.where(runs.c.queue_key == bindparam("of_key"))
    of_none, of_key = of_none.limit(most), of_key.limit(most)  # made once, where there may be many keys
    rows: list[Any] = []
    begun: dict[str | None, int] = {}
    for index, (key, room) in enumerate(turns.ready):
        share = max(1, (limit - len(rows)) // (len(turns.ready) - index))
        wanted = min(share, limit - len(rows), room)
        if wanted <= 0:
            break
        which, given = (of_none, {}) if key is None else (of_key, {"of_key": key})
        found = connection.execute(which, {"most": wanted, **given}).all()
        rows += found
        begun[key] = len(found)
    rate, taken = rate_per_key_of(queue), {key: size for key, size in begun.items() if size}
    if rate is not None and taken:
        key_buckets.take(connection, queue.name, rate, taken, now)
    if rows:
        return rows, list(begun)[-1]
    return rows, turns.broken_off_at or queue.last_key


def as_seen(connection: Connection, opening: Opening, now: int) -> Opening:
    """An opening as it is for who only looks: also whether any key that waits may begin, or when one may."""
    queue = opening.queue
    if queue.key is None or queue.rate_per_key is None or opening.slots == 0:
        return opening
    turns = whose_turn(connection, queue, now=now, limit=1)
    if turns.ready:
        return opening
    if turns.broken_off_at is None:
        return Opening(queue, 0, turns.next_at)
    rested_at = now + REST_MICROS
    return opening._replace(next_at=rested_at if turns.next_at is None else min(turns.next_at, rested_at))


def whose_turn(connection: Connection, queue: Any, *, now: int, limit: int) -> Turns:
    """Whose turn it is, `limit` keys at most, beginning behind whose turn was last."""
    under_way, most, rate = _under_way_by_key(connection, queue), _most(queue), rate_per_key_of(queue)
    enough = limit + sum(size >= most for size in under_way.values())
    furthest = enough if rate is None else enough + MOST_PASSED
    ready: list[tuple[str | None, int]] = []
    moments: list[int] = []
    for walk in _walks(connection, queue, rate, now, furthest):
        for key, full_at in walk.ready(enough):
            tokens = MOST_RUNS if rate is None else rate.allowed(full_at or 0, now)
            if (room := min(most - under_way.get(key, 0), tokens)) > 0:
                ready.append((key, room))
            if len(ready) == limit:
                return Turns(ready, None, None)
        if rate is None:
            continue
        passed = walk.passed()
        if passed.full_at is not None:
            moments.append(rate.next_at(passed.full_at))
        if passed.size >= furthest:
            return Turns(ready, None if ready else passed.last, min(moments, default=None))
    return Turns(ready, None, min(moments, default=None))


def _most(queue: Any) -> int:
    return MOST_RUNS if queue.per_key is None else int(queue.per_key)


def _under_way_by_key(connection: Connection, queue: Any) -> dict[str | None, int]:
    if queue.per_key is None:
        return {}
    counted = select(runs.c.queue_key, func.count().label("size")).where(runs.c.slot == queue.name, HAS_SLOT)
    return {row.queue_key: row.size for row in connection.execute(counted.group_by(runs.c.queue_key))}


# Walking along the keys that wait


class _Walk:
    """Along some of the keys of which runs are due, in their order: each with when its bucket is full."""

    def __init__(self, connection: Connection, keys: Subquery, rate: Rate | None, now: int) -> None:
        self._connection = connection
        self._keys = keys
        after, until = rate.empty_between(now) if rate is not None else (0, 0)
        self._is_empty = and_(keys.c.full_at > after, keys.c.full_at <= until)

    def ready(self, limit: int) -> Sequence[Any]:
        """The first keys that have a token."""
        has_token = or_(self._keys.c.full_at.is_(None), not_(self._is_empty))
        found = select(self._keys.c.key, self._keys.c.full_at).where(has_token)
        return self._connection.execute(found.limit(limit)).all()

    def passed(self) -> Passed:
        """How far it leads."""
        first = func.min(case((self._is_empty, self._keys.c.full_at)))
        row = self._connection.execute(select(func.count(), func.max(self._keys.c.key), first).select_from(self._keys))
        return Passed(*tuple(row.one()))


def _walks(connection: Connection, queue: Any, rate: Rate | None, now: int, most: int) -> Iterator[_Walk]:
    """Behind whose turn was last, then those without a key, then from the beginning: so many keys at most each time."""
    waits = and_(runs.c.queue == queue.name, NEEDS_SLOT, runs.c.wake_at <= now)
    has_key, last = runs.c.queue_key.is_not(None), queue.last_key
    behind = and_(waits, has_key) if last is None else and_(waits, has_key, runs.c.queue_key > last)
    yield _Walk(connection, _with_buckets(queue, distinct(runs.c.queue_key, behind, most)), rate, now)
    keyless = select(null().cast(Text).label("value")).where(exists().where(waits, ~has_key))
    yield _Walk(connection, _with_buckets(queue, keyless), rate, now)
    if last is not None:
        before = and_(waits, has_key, runs.c.queue_key <= last)
        yield _Walk(connection, _with_buckets(queue, distinct(runs.c.queue_key, before, most)), rate, now)


def _with_buckets(queue: Any, keys: Select[Any]) -> Subquery:
    found = keys.subquery()
    full_at = key_buckets.full_at_of(queue.name, found.c.value)  # not joined, so that their order stays
    return select(found.c.value.label("key"), full_at.label("full_at")).subquery()
