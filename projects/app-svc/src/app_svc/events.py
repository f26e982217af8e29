"""The REST of events: read the log by pages or as a stream, and publish events of one's own types."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.routing import BaseRoute

from app_svc.authorization import CallerOf
from app_svc.event_intake import EventIntake, read_events
from app_svc.event_visibility import VisibleTo, check_types
from app_svc.page import STORABLE, Limit
from app_svc.service import Service
from app_svc.streams import Streams
from lib_events.database import Connection, Database
from lib_events.event import current_cause
from lib_events.event_log import PAGE_BYTES, Cursor, read_after
from lib_events.event_log import Page as LogPage
from lib_events.http.cloudevents import BATCH, STRUCTURED
from lib_events.log.feed import Filter

READ_ROWS = 200  # of the log, in one go
READ_ROUNDS = 50  # a page may come out short; its cursor goes on where the search stopped
EVENT_STREAM = "text/event-stream"

PUBLISH_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            STRUCTURED: {"schema": {"type": "object", "required": ["specversion", "id", "source", "type"]}},
            BATCH: {"schema": {"type": "array", "items": {"type": "object"}}},
            "application/json": {"schema": {}},
        },
    }
}
Texts = Annotated[
    list[Annotated[str, Field(max_length=2_000, pattern=STORABLE)]] | None,
    Query(description="Names, or patterns such as `order.*`; also comma-separated"),
]


class EventPage(BaseModel):
    """Events in order, each with its position; `cursor` is how far the log was read."""

    items: list[dict[str, Any]]
    next_cursor: str | None
    cursor: str


class Accepted(BaseModel):
    """The events that were stored."""

    accepted: list[dict[str, str]]


def event_routes(service: Service, *, route_class: type[APIRoute]) -> list[BaseRoute]:
    """Return the routes under `/v1/events`."""
    router = APIRouter(tags=["events"], route_class=route_class)
    events = EventRoutes(service.database, service.streams, EventIntake(service.database, service.event_registry))
    stream: dict[int | str, dict[str, Any]] = {200: {"content": {EVENT_STREAM: {"schema": {"type": "string"}}}}}
    router.get("/v1/events", response_model=EventPage, responses=stream)(events.read)
    router.post("/v1/events", status_code=202, openapi_extra=PUBLISH_BODY)(events.publish)
    return router.routes


class EventRoutes:
    """One method for each route."""

    def __init__(self, database: Database, streams: Streams, intake: EventIntake) -> None:
        self._database = database
        self._streams = streams
        self._intake = intake

    async def read(
        self,
        request: Request,
        caller: CallerOf,
        *,
        types: Texts = None,
        subject: Annotated[str | None, Query(max_length=256, pattern=STORABLE)] = None,
        correlation: Annotated[str | None, Query(max_length=256, pattern=STORABLE)] = None,
        after: Annotated[str | None, Query(max_length=40, description="A cursor; default: the beginning")] = None,
        limit: Limit = 50,
    ) -> Any:
        """Read events after a cursor; with `Accept: text/event-stream` as a stream that goes on (default: from now)."""
        names = tuple(name.strip() for text in types or () for name in text.split(",") if name.strip())
        check_types(caller, names)
        wanted = Filter(types=names, subject=subject, correlation=correlation, allowed=VisibleTo.of(caller))
        if EVENT_STREAM in request.headers.get("accept", ""):
            cursor = await self._streams.cursor(request, after) or await self._streams.resolve(None)
            return self._streams.open(request, cursor, wanted)
        begin = await self._streams.resolve(after) if after is not None else None
        return await self._read_page(begin, wanted, limit)

    async def publish(self, request: Request, caller: CallerOf) -> Accepted:
        """Publish events of your own types: a CloudEvent, a batch, or one in binary mode."""
        offered = await read_events(request)
        stored = await self._intake.publish(offered, caller.principal, current_cause.get().correlation_id)
        return Accepted(accepted=[{"id": event.id, "source": event.source, "type": event.type} for event in stored])

    async def _read_page(self, begin: Cursor | None, wanted: Filter, limit: int) -> EventPage:
        items: list[dict[str, Any]] = []
        position, size = (begin.position if begin is not None else 0), 0
        for _ in range(READ_ROUNDS):
            page = await self._database.read(_read, position, wanted)
            epoch = page.head.epoch
            for placed in page.events:
                if wanted.allowed is not None and not wanted.allowed(placed.event):
                    continue
                if len(items) == limit:
                    return _event_page(items, epoch, position, is_end=False)
                position = placed.position
                items.append(placed.event.to_dict() | {"position": str(Cursor(epoch, position))})
            position, size = page.position, size + page.size
            if position >= page.head.position:
                return _event_page(items, epoch, position, is_end=True)
            if size >= PAGE_BYTES:
                break
        return _event_page(items, epoch, position, is_end=False)


def _read(connection: Connection, position: int, wanted: Filter) -> LogPage:
    return read_after(
        connection,
        position,
        types=wanted.types,
        subject=wanted.subject,
        correlation=wanted.correlation,
        limit=READ_ROWS,
        bytes_limit=PAGE_BYTES,
    )


def _event_page(items: list[dict[str, Any]], epoch: int, position: int, *, is_end: bool) -> EventPage:
    cursor = str(Cursor(epoch, position))
    return EventPage(items=items, next_cursor=None if is_end else cursor, cursor=cursor)
