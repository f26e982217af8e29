"""Gathering: events that start one run together are kept until there are enough of them, or their time has come.

Everything happens in the matcher's transactions, under its cursor: an event is gathered as the cursor moves past it,
and what it gathered with becomes a run as it is taken from here, so each is in the input of exactly one. An event costs
one row however many gather with it. Which batch takes it is decided in memory, upon the open ones that are concerned.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import batched
from typing import Any, NamedTuple

from sqlalchemy import bindparam, delete, func, insert, select, text, tuple_

from lib_events.database import Connection, insert_into
from lib_events.event import Cause, Event
from lib_events.prepared import Prepared
from lib_workflows.authoring.queue import key_of_value
from lib_workflows.runs.commands import StartRequest, start_new
from lib_workflows.tables import OPEN, batches, gathered
from lib_workflows.values.codec import LIMIT_BYTES, encode_json
from lib_workflows.values.identifiers import run_id_after

KEYS_LIMIT = 5_000  # of one query: a database takes some thirty thousand parameters
# What one transaction starts; it always starts the first.
START_BATCHES = 100
START_EVENTS = 5_000
START_BYTES = 2 * LIMIT_BYTES
TAKES_NO_MORE = 0  # when it is due that is full: at any time
DUE = Prepared(
    select(batches)
    .where(batches.c.due_at <= bindparam("now"))
    .order_by(batches.c.due_at, batches.c.last_position)
    .limit(START_BATCHES)
)

type Key = tuple[str, str, str]  # workflow, type of the events, their key as JSON


class Came(NamedTuple):
    """An event for the batches of a trigger."""

    trigger: Any
    event: Event
    position: int
    payload: str
    size: int
    value: str | None  # of the field by which it gathers

    @classmethod
    def of(cls, trigger: Any, event: Event, position: int) -> "Came":
        """An event, with what decides where it belongs."""
        payload = encode_json(event.data)
        value = key_of_value(trigger.batch_key, event.data)
        return cls(trigger, event, position, payload, len(payload.encode()), value)

    @property
    def key(self) -> Key:
        """With what it gathers."""
        return self.trigger.workflow, self.trigger.event_type, encode_json(self.value)


@dataclass(slots=True, kw_only=True)
class Gathering:
    """A batch that takes events: a row of `batches`."""

    run: str
    workflow: str
    event_type: str
    key: str
    version: int
    queue: str
    queue_key: str | None
    deadline_micros: int | None
    due_at: int
    principal: str | None
    correlation_id: str | None
    causation_id: str | None
    traceparent: str | None
    last_position: int = 0
    events: int = 0
    bytes: int = 0

    @classmethod
    def begun_by(cls, came: Came, now: int) -> "Gathering":
        """The batch that an event begins: its run is named after that event, and goes on with its story."""
        trigger, cause = came.trigger, came.event.cause
        workflow, event_type, key = came.key
        return cls(
            run=run_id_after(workflow, came.event.source, came.event.id, str(came.position)),
            workflow=workflow,
            event_type=event_type,
            key=key,
            version=trigger.version,
            queue=trigger.queue,
            # Only what all of them have can say with whom their run takes turns.
            queue_key=came.value if trigger.queue_key == trigger.batch_key else None,
            deadline_micros=trigger.deadline_micros,
            due_at=now + trigger.batch_micros,
            principal=cause.principal,
            correlation_id=cause.correlation_id,
            causation_id=cause.causation_id,
            traceparent=cause.traceparent,
        )

    def has_room_for(self, came: Came) -> bool:
        """Whether its input stays as small as an input must be: the payloads, commas between them, and brackets."""
        return self.events == 0 or self.bytes + came.size + self.events + 2 <= LIMIT_BYTES

    def add(self, came: Came) -> dict[str, Any]:
        """Take an event; returns its row."""
        self.events += 1
        self.bytes += came.size
        self.last_position = came.position
        if came.event.cause.principal != self.principal:
            self.principal = None  # nobody's events must come to be done in another's name
        if self.events >= came.trigger.batch_events:
            self.close()
        return {"run": self.run, "position": came.position, "payload": came.payload}

    def close(self) -> None:
        """Take no more."""
        self.due_at = TAKES_NO_MORE


def gather(connection: Connection, placed: Iterable[tuple[int, Event]], triggers: Sequence[Any], now: int) -> None:
    """Keep these events with what they gather with."""
    came = [
        Came.of(trigger, event, position)
        for position, event in placed
        for trigger in triggers
        if trigger.event_type == event.type and trigger.after_position < position
    ]
    if not came:
        return
    takers = _open_batches(connection, {each.key for each in came})
    touched: dict[str, Gathering] = {}
    rows = [taker.add(each) for each in came for taker in [_taker(each, takers, touched, now)]]
    _put(connection, touched.values())
    connection.execute(insert(gathered), rows)


def _open_batches(connection: Connection, keys: Iterable[Key]) -> dict[Key, Gathering]:
    key = tuple_(batches.c.workflow, batches.c.event_type, batches.c.key)
    found: dict[Key, Gathering] = {}
    for some in batched(keys, KEYS_LIMIT, strict=False):
        for row in connection.execute(select(batches).where(text(OPEN), key.in_(some))):
            found[row.workflow, row.event_type, row.key] = Gathering(**row._mapping)
    return found


def _taker(came: Came, takers: dict[Key, Gathering], touched: dict[str, Gathering], now: int) -> Gathering:
    """The batch that takes an event: the open one of its key, unless that is full, or would be too large."""
    taker = takers.get(came.key)
    if taker is not None and not taker.has_room_for(came):
        taker.close()
        touched[taker.run] = taker
    if taker is None or taker.due_at == TAKES_NO_MORE:
        taker = takers[came.key] = Gathering.begun_by(came, now)
    touched[taker.run] = taker
    return taker


def _put(connection: Connection, changed: Iterable[Gathering]) -> None:
    """Write the batches, in the order in which they were touched: one closes before the next of its key opens."""
    new = insert_into(connection, batches)
    replaced = {name: new.excluded[name] for name in ("events", "bytes", "due_at", "last_position", "principal")}
    upsert = new.on_conflict_do_update(index_elements=[batches.c.run], set_=replaced)
    connection.execute(upsert, [asdict(each) for each in changed])


def start_due(connection: Connection, now: int) -> None:
    """Start the runs of batches that are full, or whose time has come: as many as one transaction does."""
    due = list(_first_of(connection.rows(DUE, now=now)))
    if not due:
        return
    runs = [batch.run for batch in due]
    of_these = gathered.c.run.in_(runs)
    payloads: dict[str, list[str]] = {run: [] for run in runs}
    in_order = select(gathered.c.run, gathered.c.payload).where(of_these).order_by(gathered.c.run, gathered.c.position)
    for run, payload in map(tuple, connection.execute(in_order)):
        payloads[run].append(payload)
    start_new(connection, [_request(batch, payloads[batch.run]) for batch in due], now)
    connection.execute(delete(gathered).where(of_these))
    connection.execute(delete(batches).where(batches.c.run.in_(runs)))


def _first_of(due: Iterable[Any]) -> Iterator[Any]:
    events = size = 0
    for batch in due:
        events, size = events + batch.events, size + batch.bytes
        if events > max(batch.events, START_EVENTS) or size > max(batch.bytes, START_BYTES):
            return
        yield batch


def _request(batch: Any, payloads: Sequence[str]) -> StartRequest:
    return StartRequest(
        workflow=batch.workflow,
        version=batch.version,
        queue=batch.queue,
        queue_key=batch.queue_key,
        deadline_micros=batch.deadline_micros,
        input=f"[{','.join(payloads)}]",
        id=batch.run,
        cause=Cause(batch.correlation_id, batch.causation_id, batch.principal, batch.traceparent),
        look_back_position=batch.last_position,
    )


def gathering_events(connection: Connection) -> dict[str, int]:
    """How many events gather for each workflow."""
    found = select(batches.c.workflow, func.sum(batches.c.events)).group_by(batches.c.workflow)
    return {workflow: int(events) for workflow, events in map(tuple, connection.execute(found))}
