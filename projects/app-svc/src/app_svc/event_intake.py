"""Events from outside: what may come in, and that it comes in once."""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import select
from starlette.requests import Request

from lib_auth.principal import Principal
from lib_events.database import Connection, Database
from lib_events.event import Event, EventRegistry, EventRejected, check_attributes, is_reserved
from lib_events.http import cloudevents as cloudevents_http
from lib_events.problem import Problem
from lib_events.tables import events

EVENT_LIMIT_BYTES = 512 * 1024
ID_LIMIT = 200
UNIQUE_VIOLATION = "23505"  # PostgreSQL; on SQLite one writer looks and stores
# Only the services themselves speak under these names.
SERVICES = frozenset(("app-svc", "auth-svc", "gui-proj", "cli-proj", "webhooks"))
# We say who published and why; whoever publishes may only continue a story, not invent its actors.
OWN_EXTENSIONS = frozenset(("principal", "causationid"))
STATUS_OF_REASON = {
    "malformed": 400,
    "unsupported_content": 415,
    "unknown_type": 422,
    "invalid_data": 422,
    "reserved_type": 403,
}


async def read_events(request: Request) -> list[Event]:
    """Read the events of a request; raises the `Problem` that says what is wrong with it."""
    try:
        return cloudevents_http.read_events(request.headers, await request.body())
    except EventRejected as rejected:
        raise refusal(rejected) from rejected


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
        check_attributes(event)
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
