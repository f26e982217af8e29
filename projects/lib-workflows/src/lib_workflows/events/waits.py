"""Waiting for events: registering a wait, looking back, and the matcher that hands events to whoever waits.

The matcher is a durable subscription to the own event log. A wait is registered, and the log looked through up
to its head, in one transaction that holds the matcher's cursor; the matcher takes the same lock first. So every
event is either seen by the look-back, or finds the wait.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import bindparam, delete, func, insert, select, text, tuple_

from lib_events.database import Connection
from lib_events.event import Event
from lib_events.event_log import head
from lib_events.tables import events, subscription_cursors
from lib_workflows.tables import batches, event_waits, runs
from lib_workflows.values.codec import canonical_json, decode_json, encode_json

MATCHER = "workflow-matcher"
WAITS_TOPIC = "event-waits"  # somebody waits for an event who did not before
MATCH_LIMIT = 200  # events matched in one transaction
MATCH_BYTES = 2 * 1024 * 1024  # of them, and what is over with the last
LOOK_BACK_LIMIT = 1_000  # events looked through in one transaction
# What is waited for, one step on the index for each: however many wait, it is for few types and with few fields.
WAITED_TYPES = """
    waited (type) AS (
        SELECT min(type) FROM event_waits
        UNION ALL
        SELECT (SELECT min(type) FROM event_waits WHERE type > waited.type) FROM waited WHERE type IS NOT NULL
    )
"""
SHAPES = text(f"""
    WITH RECURSIVE {WAITED_TYPES}, shapes (type, fields) AS (
        SELECT type, (SELECT min(fields) FROM event_waits WHERE type = waited.type)
        FROM waited WHERE type IS NOT NULL
        UNION ALL
        SELECT type, (SELECT min(fields) FROM event_waits WHERE type = shapes.type AND fields > shapes.fields)
        FROM shapes WHERE fields IS NOT NULL
    )
    SELECT type, fields FROM shapes WHERE fields IS NOT NULL
""")  # noqa: S608 - our own words


def _next() -> Any:
    """The query for the next events of some types, so many and so many bytes; to make it costs more than to ask it."""
    position, size = events.c.last_position, func.length(events.c.body).label("size")
    in_bounds = (position > bindparam("after"), position <= bindparam("until"))
    mine = events.c.type.in_(bindparam("types", expanding=True))
    next_ones = select(events.c.sequence, position, size).where(mine, *in_bounds)
    sized = next_ones.order_by(position).limit(bindparam("limit")).subquery()
    before = func.sum(sized.c.size).over(order_by=sized.c.last_position) - sized.c.size
    summed = select(sized.c.sequence, before.label("before")).subquery()
    found = select(position, events.c.body).join(summed, summed.c.sequence == events.c.sequence)
    return found.where(summed.c.before < bindparam("bytes")).order_by(position)


NEXT = _next()


class Looked(NamedTuple):
    """How far the log was looked through, and what was found at its end."""

    reached: int
    payload: str | None = None  # of the event at `reached`
    waits: bool = False  # nothing so far: the matcher knows who waits


class Wait(NamedTuple):
    """One operation of a run that waits for an event, received so far those up to `after` (None: as it began)."""

    run: str
    operation: str
    event_type: str
    match: str  # canonical
    after: int | None


def register_event_waits(connection: Connection, waits: Sequence[Wait]) -> list[Looked]:
    """Find for each the first event after its `after` that matches, else let it wait for one.

    Looks through a part of a long log only: then nothing was found, nobody waits yet, and it must be asked again.
    """
    lock_matcher(connection)
    log = _Log(connection, [wait.event_type for wait in waits])
    began_after = _look_back_positions(connection, [wait.run for wait in waits if wait.after is None])
    found = [log.first(wait, began_after.get(wait.run, 0) if wait.after is None else wait.after) for wait in waits]
    here = tuple_(event_waits.c.run, event_waits.c.operation)
    connection.execute(delete(event_waits).where(here.in_([(wait.run, wait.operation) for wait in waits])))
    rows = [_row(wait, looked.reached) for wait, looked in zip(waits, found, strict=True) if looked.waits]
    if rows:
        connection.execute(insert(event_waits), rows)
        connection.notify(WAITS_TOPIC)
    return found


def _look_back_positions(connection: Connection, run_ids: Sequence[str]) -> dict[str, int]:
    if not run_ids:
        return {}
    found = connection.execute(select(runs.c.id, runs.c.look_back_position).where(runs.c.id.in_(set(run_ids))))
    return {row.id: row.look_back_position or 0 for row in found}


def _row(wait: Wait, reached: int) -> dict[str, Any]:
    return {
        "run": wait.run,
        "operation": wait.operation,
        "type": wait.event_type,
        "fields": fields_of(wait.match),
        "match": wait.match,
        "after_position": reached,
    }


class _Log:
    """What one transaction reads of the log: its last part once for everybody, older parts by each, in all so much."""

    def __init__(self, connection: Connection, types: Sequence[str]) -> None:
        self._connection = connection
        self._until = head(connection).position
        self._recent_after = self._until - LOOK_BACK_LIMIT
        self._types = set(types)
        self._left = LOOK_BACK_LIMIT  # older events that may still be read
        self._recent: list[tuple[int, Event]] | None = None
        self._by_match: dict[tuple[str, str], dict[str, list[tuple[int, Event]]]] = {}

    def first(self, wait: Wait, after: int) -> Looked:
        """Return the first event after `after` that matches, or how far it was looked for."""
        if after < self._recent_after:
            return self._first_of_older(wait, after)
        for position, event in self._recent_by_match(wait).get(wait.match, ()):
            if position > after:
                return Looked(position, encode_json(event.data))
        return Looked(max(after, self._until), waits=True)

    def _recent_by_match(self, wait: Wait) -> dict[str, list[tuple[int, Event]]]:
        fields = fields_of(wait.match)
        known = self._by_match.get((wait.event_type, fields))
        if known is None:
            known = self._by_match[wait.event_type, fields] = {}
            for position, event in self._all_recent():
                matched = match_text(event, fields) if event.type == wait.event_type else None
                if matched is not None:
                    known.setdefault(matched, []).append((position, event))
        return known

    def _all_recent(self) -> list[tuple[int, Event]]:
        if self._recent is None:
            found = events_of_types(self._connection, list(self._types), self._recent_after, self._until, None)
            self._recent = list(found)
        return self._recent

    def _first_of_older(self, wait: Wait, after: int) -> Looked:
        fields = fields_of(wait.match)
        limit, seen = self._left, 0
        if limit == 0:
            return Looked(after)
        for position, event in events_of_types(self._connection, [wait.event_type], after, self._until, limit):
            self._left -= 1
            if match_text(event, fields) == wait.match:
                return Looked(position, encode_json(event.data))
            seen, after = seen + 1, position
        return Looked(after) if seen == limit else Looked(max(after, self._until), waits=True)


def oldest_look_back(connection: Connection) -> int | None:
    """Return the place after which some run may look for events, also one that has not started; None: there is none."""
    unfinished = select(func.min(runs.c.look_back_position)).where(runs.c.ended_at.is_(None))
    to_start = select(func.min(batches.c.last_position))
    found = [connection.scalar(unfinished), connection.scalar(to_start)]
    return min((position for position in found if position is not None), default=None)


def lock_matcher(connection: Connection) -> int:
    """Hold the matcher's cursor while this transaction lasts, and return it."""
    cursor = select(subscription_cursors.c.position).where(subscription_cursors.c.durable == MATCHER)
    return int(connection.execute(cursor.with_for_update()).scalar_one())


def waited_shapes(connection: Connection) -> dict[str, list[str]]:
    """The types of events that somebody waits for, each with the fields that are matched."""
    shapes: dict[str, list[str]] = {}
    for shape in connection.execute(SHAPES):
        shapes.setdefault(shape.type, []).append(shape.fields)
    return shapes


def events_of_types(
    connection: Connection, types: Sequence[str], after: int, until: int, limit: int | None
) -> Iterator[tuple[int, Event]]:
    """The placed events of these types in `after < position <= until`; segments hold none that are waited for."""
    query = (
        select(events.c.last_position, events.c.body)
        .where(events.c.type.in_(types), events.c.last_position > after, events.c.last_position <= until)
        .order_by(events.c.last_position)
        .limit(limit)
    )
    for row in connection.execute(query):
        yield row.last_position, Event.from_json(row.body)


def next_of_types(
    connection: Connection, types: Sequence[str], after: int, until: int
) -> tuple[list[tuple[int, Event]], int]:
    """The next such events that one transaction can match, few of large ones, and how far the log is read with them."""
    bounds = {"types": list(types), "after": after, "until": until, "limit": MATCH_LIMIT, "bytes": MATCH_BYTES}
    found = connection.execute(NEXT, bounds).all()
    is_end = len(found) < MATCH_LIMIT and sum(len(row.body) for row in found) < MATCH_BYTES
    reached = until if is_end else found[-1].last_position
    return [(row.last_position, Event.from_json(row.body)) for row in found], reached


def fields_of(match: str) -> str:
    """The names of the fields of a canonical match, as one text; see `_names_in`."""
    names = list(decode_json(match))
    plain = ",".join(names)
    is_plain = not plain.startswith("[") and _names_in(plain) == names
    return plain if is_plain else encode_json(names)


def _names_in(fields: str) -> list[str]:
    """The names that `fields_of` has put together."""
    if fields.startswith("["):
        names: list[str] = decode_json(fields)
        return names
    return fields.split(",") if fields else []


def match_text(event: Event, fields: str) -> str | None:
    """What a match on `fields` must be for this event, or None when it lacks one."""
    matched = _matched(event, fields)
    return None if matched is None else canonical_json(matched)


def match_texts(event: Event, fields: str) -> set[str]:
    """The same, of those who have been waiting since before matches were canonical, too."""
    matched = _matched(event, fields)
    return set() if matched is None else {canonical_json(matched), encode_json(matched)}


def _matched(event: Event, fields: str) -> dict[str, Any] | None:
    names = _names_in(fields)
    data = event.data if isinstance(event.data, dict) else {}
    return {name: data[name] for name in names} if all(name in data for name in names) else None
