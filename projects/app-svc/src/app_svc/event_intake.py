"""Events from outside: the CloudEvents HTTP binding in its three modes, and what may come in."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from pydantic_core import from_json
from sqlalchemy import select
from starlette.requests import Request

from lib_auth.principal import Principal
from lib_events.database import Connection, Database
from lib_events.event import Event, EventRegistry, EventRejected, is_reserved
from lib_events.problem import Problem
from lib_events.tables import events

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
BATCH_LIMIT = 500
EVENT_LIMIT_BYTES = 512 * 1024
ID_LIMIT = 200
UNIQUE_VIOLATION = "23505"  # PostgreSQL; on SQLite one writer looks and stores
# Only the services themselves speak under these names.
SERVICES = frozenset(("app-svc", "auth-svc", "gui-proj", "cli-proj", "webhooks"))
# We say who published and why; whoever publishes may only continue a story, not invent its actors.
OWN_EXTENSIONS = frozenset(("principal", "causationid"))
STATUS_OF_REASON = {"malformed": 400, "unknown_type": 422, "invalid_data": 422, "reserved_type": 403}


async def read_events(request: Request) -> list[Event]:
    """Read the events of a request in structured, batch or binary mode; raises the `Problem` 400, 413, 415 or 422."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await request.body()
    try:
        if media_type == STRUCTURED:
            return [Event.from_json(body)]
        if media_type == BATCH:
            return _read_batch(body)
        if "ce-type" in request.headers:
            return [_read_binary(request.headers, media_type, body)]
    except EventRejected as rejected:
        raise refusal(rejected) from rejected
    raise Problem(
        415,
        "not-a-cloud-event",
        detail=f"content type must be {STRUCTURED} or {BATCH}, or the event must be in ce- headers, got {media_type!r}",
    )


def _read_batch(body: bytes) -> list[Event]:
    try:
        batch = from_json(body)
    except ValueError as error:
        raise EventRejected("malformed", f"the batch must be JSON: {error}") from error
    if not isinstance(batch, list) or not all(isinstance(item, dict) for item in batch):
        raise EventRejected("malformed", "the batch must be a JSON array of events")
    if not 1 <= len(batch) <= BATCH_LIMIT:
        raise EventRejected("malformed", f"a batch must have 1 to {BATCH_LIMIT} events, got {len(batch)}")
    return [Event.from_dict(item) for item in batch]


def _read_binary(headers: Mapping[str, str], media_type: str, body: bytes) -> Event:
    # CloudEvents HTTP binding 1.0.2 section 3.1: attributes are percent-encoded ce- headers, the body is the data.
    attributes: dict[str, Any] = {
        name.removeprefix("ce-"): unquote(value) for name, value in headers.items() if name.startswith("ce-")
    }
    if body:
        if media_type != "application/json":
            raise EventRejected("malformed", f"data must be application/json, got {media_type!r}", field="data")
        try:
            attributes["data"] = from_json(body)
        except ValueError as error:
            raise EventRejected("malformed", f"data must be JSON: {error}", field="data") from error
    return Event.from_dict(attributes)


class EventIntake:
    """Lets in events of registered types and appends them to the event log."""

    def __init__(self, database: Database, registry: EventRegistry) -> None:
        self._database = database
        self._registry = registry

    async def publish(self, offered: Sequence[Event], principal: Principal, correlation_id: str | None) -> list[Event]:
        """Store `offered`, all or none, once each; raises the `Problem` that says which rule one of them breaks."""
        accepted = []
        for index, event in enumerate(offered):
            try:
                accepted.append(self._admit(event, principal, correlation_id))
            except EventRejected as rejected:
                raise refusal(rejected, index if len(offered) > 1 else None) from rejected
        await self._store(accepted)
        return accepted

    async def take_in(self, event: Event, principal: str) -> Event:
        """Store an event that we made of something from outside, once; raises the `Problem` that says what is wrong."""
        try:
            completed = self._complete(event, principal, None)
        except EventRejected as rejected:
            raise refusal(rejected) from rejected
        await self._store([completed])
        return completed

    async def _store(self, accepted: Sequence[Event]) -> None:
        try:
            await self._database.transact(_append, accepted)
        except Exception as error:
            if not _is_duplicate(error):
                raise
            # Somebody stored the same id in the same moment; now it can be seen what it is.
            await self._database.transact(_append, accepted)

    def _admit(self, event: Event, principal: Principal, correlation_id: str | None) -> Event:
        if is_reserved(event.type):
            detail = f"event type must be of your own namespace, got {event.type!r}; evs.* is for the services alone"
            raise EventRejected("reserved_type", detail, event_type=event.type, field="type")
        if event.source.strip("/").partition("/")[0] in SERVICES:
            raise EventRejected("malformed", f"source must be your own, got {event.source[:80]!r}", field="source")
        return self._complete(event, principal.subject, correlation_id)

    def _complete(self, event: Event, principal: str, correlation_id: str | None) -> Event:
        for name, text in (("source", event.source), ("id", event.id)):
            if len(text) > ID_LIMIT:
                detail = f"{name} must be at most {ID_LIMIT} characters long, got {text[:80]!r}"
                raise EventRejected("malformed", detail, field=name)
        if any("\0" in text for text in (event.id, event.source, event.subject or "", *event.extensions.values())):
            raise EventRejected("malformed", "attributes must not have the character U+0000", event_type=event.type)
        self._registry.check(event)
        extensions = {name: value for name, value in event.extensions.items() if name not in OWN_EXTENSIONS}
        extensions.setdefault("correlationid", correlation_id or event.id)
        admitted = replace(event, extensions=extensions | {"principal": principal})
        if len(admitted.to_json()) > EVENT_LIMIT_BYTES:
            detail = f"an event must be at most {EVENT_LIMIT_BYTES} bytes; store the data and publish a reference"
            raise EventRejected("malformed", detail, event_type=event.type, field="data")
        return admitted


def _append(connection: Connection, accepted: Sequence[Event]) -> None:
    """Transaction function: append what is new; the same event again (source and id) changes nothing."""
    new: dict[tuple[str, str], Event] = {}
    for event in accepted:
        query = select(events.c.body).where(events.c.source == event.source, events.c.id == event.id)
        stored = connection.scalar(query)
        known = Event.from_json(stored) if stored is not None else new.get((event.source, event.id))
        if known is None:
            new[event.source, event.id] = event
        elif not _is_same(known, event):
            raise _taken(event)
    connection.publish(*new.values())


def _is_duplicate(error: Exception) -> bool:
    """Whether a row of that key was there already; hot rows raise the driver's own exception."""
    return getattr(getattr(error, "orig", None) or error, "sqlstate", None) == UNIQUE_VIOLATION


def _is_same(known: Event, event: Event) -> bool:
    facts = ("type", "subject", "data")
    same_actor = known.extensions.get("principal") == event.extensions.get("principal")
    return same_actor and all(getattr(known, name) == getattr(event, name) for name in facts)


def _taken(event: Event) -> Problem:
    detail = f"id must be new for source {event.source!r}, got {event.id!r} of another event; choose a new id"
    return Problem(409, "event-conflict", "This event id is taken", detail)


def refusal(rejected: EventRejected, index: int | None = None) -> Problem:
    """The problem document of an event that is not let in."""
    pointer = "/" + rejected.field.replace(".", "/") if rejected.field else ""
    where = f"/{index}{pointer}" if index is not None else pointer
    return Problem(
        STATUS_OF_REASON[rejected.reason],
        f"event-{rejected.reason.replace('_', '-')}",
        "The event is not accepted",
        rejected.detail,
        errors=[{"pointer": where, "detail": rejected.detail}],
    )
