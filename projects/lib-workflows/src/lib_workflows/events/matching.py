"""Matching: which runs the next events of the log start, and which runs wait for them."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import batched
from typing import Any, NamedTuple

from sqlalchemy import insert, select, tuple_

from lib_events.database import Connection
from lib_events.event import Event
from lib_events.statement import Write
from lib_workflows.authoring.queue import key_of
from lib_workflows.events.waits import match_texts, waited_shapes
from lib_workflows.runs.commands import StartRequest, start_new, wake_all
from lib_workflows.statements import DELETE_EVENT_WAIT
from lib_workflows.tables import event_waits, messages, triggers
from lib_workflows.values.codec import encode_json
from lib_workflows.values.identifiers import run_id_after

SENT_LIMIT = 5_000  # waits that one transaction serves; thousands may wait for the same event
KEYS_LIMIT = 5_000  # of one query: a database takes some thirty thousand parameters

type Placed = tuple[int, Event]
type Key = tuple[str, str, str]  # the type, fields and match of an event that somebody waits for


class SentEvent(NamedTuple):
    """An event for the operation of a run that waits for it."""

    run: str
    operation: str
    payload: str
    position: int


class Wanted(NamedTuple):
    """What somebody waits for, or is started by."""

    triggers: Sequence[Any]  # each event starts a run
    gathering: Sequence[Any]  # so many events start a run
    shapes: Mapping[str, Sequence[str]]  # by type of the events that runs wait for: the fields that are matched

    @property
    def types(self) -> list[str]:
        """The types of events that concern anybody."""
        return list({*self.shapes, *(trigger.event_type for trigger in (*self.triggers, *self.gathering))})


def wanted(connection: Connection) -> Wanted:
    """Read what is wanted now."""
    known = connection.execute(select(triggers)).all()
    single = [trigger for trigger in known if trigger.batch_events is None]
    gathering = [trigger for trigger in known if trigger.batch_events is not None]
    return Wanted(single, gathering, waited_shapes(connection))


def match_events(connection: Connection, placed: Sequence[Placed], wanted: Wanted, now: int) -> bool:
    """Start the runs that these events trigger and hand them to the runs that wait for them.

    Returns False when more wait than one transaction serves: the same events must be matched again.
    """
    start_new(connection, _triggered(placed, wanted.triggers), now)
    return _hand_over(connection, placed, wanted.shapes, now)


# Triggers


def _triggered(placed: Sequence[Placed], known: Sequence[Any]) -> list[StartRequest]:
    return [
        trigger_request(trigger, event, position)
        for position, event in placed
        for trigger in known
        if trigger.event_type == event.type and trigger.after_position < position
    ]


def trigger_request(trigger: Any, event: Event, position: int) -> StartRequest:
    """The one run of a workflow for an event: its id is derived from both."""
    payload = encode_json(event.data) if trigger.takes_input else None
    return StartRequest(
        workflow=trigger.workflow,
        version=trigger.version,
        queue=trigger.queue,
        queue_key=key_of(trigger.queue_key, payload),
        deadline_micros=trigger.deadline_micros,
        input=payload,
        id=trigger_run_id(trigger.workflow, event),
        cause=event.cause,
        look_back_position=position,
    )


def trigger_run_id(workflow: str, event: Event) -> str:
    """The same event (source and id name it, CloudEvents 1.0 section 3.1.1) always means the same run."""
    return run_id_after(workflow, event.source, event.id)


# Waits


def _hand_over(connection: Connection, placed: Sequence[Placed], shapes: Mapping[str, Sequence[str]], now: int) -> bool:
    by_key = _by_key(placed, shapes)
    if not by_key:
        return True
    sent: list[SentEvent] = []
    served: set[tuple[str, Key, int]] = set()
    for wait in _waits(connection, list(by_key), placed[-1][0]):
        key = (wait.type, wait.fields, wait.match)
        for position, event in by_key[key]:
            # A run receives each event at most once per (type, match).
            if position > wait.after_position and (wait.run, key, position) not in served:
                served.add((wait.run, key, position))
                sent.append(SentEvent(wait.run, wait.operation, encode_json(event.data), position))
                break
        if len(sent) == SENT_LIMIT:
            break
    _send(connection, sent, now)
    return len(sent) < SENT_LIMIT


def _waits(connection: Connection, keys: Sequence[Key], before: int) -> Iterator[Any]:
    key = tuple_(event_waits.c.type, event_waits.c.fields, event_waits.c.match)
    for some in batched(keys, KEYS_LIMIT, strict=False):
        found = select(event_waits).where(key.in_(some), event_waits.c.after_position < before)
        yield from connection.execute(found.order_by(event_waits.c.run, event_waits.c.operation))


def _by_key(placed: Sequence[Placed], shapes: Mapping[str, Sequence[str]]) -> dict[Key, list[Placed]]:
    """The events by what somebody may wait for."""
    by_key: dict[Key, list[Placed]] = {}
    for position, event in placed:
        for fields in shapes.get(event.type, ()):
            for match in match_texts(event, fields):
                by_key.setdefault((event.type, fields, match), []).append((position, event))
    return by_key


def _send(connection: Connection, sent: Sequence[SentEvent], now: int) -> None:
    """Hand events to those who wait for them, who wait no more then; runs that have ended, or are gone, get none."""
    connection.write(*(Write(DELETE_EVENT_WAIT, (event.run, event.operation)) for event in sent))
    by_run: dict[str, list[SentEvent]] = {}
    for event in sent:
        by_run.setdefault(event.run, []).append(event)
    by_count: dict[int, list[str]] = {}
    for run_id, events in by_run.items():
        by_count.setdefault(len(events), []).append(run_id)
    rows: list[dict[str, Any]] = []
    for count, run_ids in by_count.items():
        for run_id, last in wake_all(connection, run_ids, count).items():
            numbers = range(last - count + 1, last + 1)
            rows += [_event_row(event, number, now) for event, number in zip(by_run[run_id], numbers, strict=True)]
    if rows:
        connection.execute(insert(messages), rows)


def _event_row(event: SentEvent, number: int, now: int) -> dict[str, Any]:
    return {
        "run": event.run,
        "number": number,
        "kind": "event",
        "name": event.operation,
        "payload": event.payload,
        "reference": str(event.position),
        "sent_at": now,
    }
