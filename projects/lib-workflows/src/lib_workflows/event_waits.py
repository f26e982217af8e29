"""Waiting for events: registering a wait, looking back, and the matcher that hands events to whoever waits.

The matcher is a durable subscription to the own event log. A wait is registered, and the log looked through up
to its head, in one transaction that holds the matcher's cursor; the matcher takes the same lock first. So every
event is either seen by the look-back, or finds the wait.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import delete, func, insert, select

from lib_events.clock import SystemClock
from lib_events.database import Connection
from lib_events.event import Event
from lib_events.event_log import head
from lib_events.tables import events, subscription_cursors
from lib_workflows.codec import decode_json, encode_json
from lib_workflows.commands import StartRequest, send_event, start
from lib_workflows.messages import Principal
from lib_workflows.tables import event_waits, runs, triggers

MATCHER = "workflow-matcher"
WAITS_TOPIC = "event-waits"  # somebody waits for an event who did not before
BATCH = 200
LOOK_BACK_LIMIT = 1_000  # events looked through in one transaction


class Looked(NamedTuple):
    """How far the log was looked through, and what was found at its end."""

    reached: int
    payload: str | None = None  # of the event at `reached`
    waits: bool = False  # nothing so far: the matcher knows who waits


def canonical_match(match: Mapping[str, Any]) -> str:
    """One text for equal matches."""
    return encode_json({name: match[name] for name in sorted(match)})


def register_event_wait(  # noqa: PLR0917 - a transaction function
    connection: Connection, run_id: str, operation: str, event_type: str, match: str, after: int | None
) -> Looked:
    """Find the first event after `after` (default: where the run looks back to) that matches, else wait for it.

    Looks through a part of a long log only: then nothing was found, nobody waits yet, and it must be asked again.
    """
    lock_matcher(connection)
    if after is None:
        after = int(connection.scalar(select(runs.c.look_back_position).where(runs.c.id == run_id)) or 0)
    looked = _look_back(connection, event_type, match, after)
    mine = (event_waits.c.run == run_id, event_waits.c.operation == operation)
    connection.execute(delete(event_waits).where(*mine))
    if not looked.waits:
        return looked
    row = {
        "run": run_id,
        "operation": operation,
        "type": event_type,
        "fields": fields_of(match),
        "match": match,
        "after_position": looked.reached,
    }
    connection.execute(insert(event_waits).values(**row))
    connection.notify(WAITS_TOPIC)
    return looked


def oldest_look_back(connection: Connection) -> int | None:
    """Return the place after which some unfinished run may still look for events; None when there is none."""
    oldest: int | None = connection.scalar(select(func.min(runs.c.look_back_position)).where(runs.c.ended_at.is_(None)))
    return oldest


def lock_matcher(connection: Connection) -> int:
    """Hold the matcher's cursor while this transaction lasts, and return it."""
    cursor = select(subscription_cursors.c.position).where(subscription_cursors.c.durable == MATCHER)
    if connection.dialect_name == "postgresql":
        cursor = cursor.with_for_update()
    return int(connection.execute(cursor).scalar_one())


def _look_back(connection: Connection, event_type: str, match: str, after: int) -> Looked:
    until = head(connection).position
    fields = fields_of(match)
    seen = 0
    for position, event in events_of_types(connection, [event_type], after, until, LOOK_BACK_LIMIT):
        if match_text(event, fields) == match:
            return Looked(position, encode_json(event.data))
        seen, after = seen + 1, position
    return Looked(after) if seen == LOOK_BACK_LIMIT else Looked(max(after, until), waits=True)


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


def fields_of(match: str) -> str:
    """The names of the fields of a canonical match."""
    return ",".join(decode_json(match))


def match_text(event: Event, fields: str) -> str | None:
    """What a match on `fields` must be for this event, or None when it lacks one."""
    names = fields.split(",") if fields else []
    data = event.data if isinstance(event.data, dict) else {}
    if any(name not in data for name in names):
        return None
    return encode_json({name: data[name] for name in names})


def match_event(connection: Connection, event: Event, position: int) -> None:
    """Start the runs that `event` triggers and hand it to the runs that wait for it."""
    now = SystemClock().micros()
    wanted = (triggers.c.event_type == event.type, triggers.c.after_position < position)
    for trigger in connection.execute(select(triggers).where(*wanted)).all():
        start(connection, trigger_request(trigger, event, position), now)
    shapes = select(event_waits.c.fields).where(event_waits.c.type == event.type).distinct()
    for fields in connection.scalars(shapes).all():
        _hand_over(connection, event, position, fields, now)


def _hand_over(connection: Connection, event: Event, position: int, fields: str, now: int) -> None:
    wanted = match_text(event, fields)
    if wanted is None:
        return
    waits = connection.execute(
        select(event_waits.c.run, event_waits.c.operation)
        .where(
            event_waits.c.type == event.type,
            event_waits.c.fields == fields,
            event_waits.c.match == wanted,
            event_waits.c.after_position < position,
        )
        .order_by(event_waits.c.run, event_waits.c.operation)
    ).all()
    payload = encode_json(event.data)
    served: set[str] = set()
    for run_id, operation in (tuple(wait) for wait in waits):
        # A run receives each event at most once per (type, match).
        if run_id not in served:
            served.add(run_id)
            send_event(connection, run_id, operation, payload, position=position, now=now)


def trigger_request(trigger: Any, event: Event, position: int) -> StartRequest:
    """The one run of a workflow for an event: its id is derived from both."""
    principal = event.extensions.get("principal")
    return StartRequest(
        workflow=trigger.workflow,
        version=trigger.version,
        queue=trigger.queue,
        input=encode_json(event.data) if trigger.takes_input else None,
        id=trigger_run_id(trigger.workflow, event),
        principal=Principal(principal) if principal else None,
        cause=event.cause,
        look_back_position=position,
    )


def trigger_run_id(workflow: str, event: Event) -> str:
    """The same event (source and id name it, CloudEvents 1.0 section 3.1.1) always means the same run."""
    digest = hashlib.blake2b(f"{workflow}\0{event.source}\0{event.id}".encode(), digest_size=16)
    return digest.hexdigest()
