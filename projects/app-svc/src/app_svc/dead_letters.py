"""The REST of dead letters: events a subscription gave up on; handled again, as they are or edited, or let go."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from pydantic_core import from_json
from sqlalchemy import Row, select
from starlette.routing import BaseRoute

from app_svc.authorization import CallerOf
from app_svc.event_intake import refusal
from app_svc.page import CursorText, Limit, Page, cut, decode_cursor, encode_cursor
from lib_events.clock import to_datetime
from lib_events.database import Connection, Database
from lib_events.event import Event, EventRegistry, EventRejected
from lib_events.handling.dead_letters import DeadLetterRefused, discard, redrive
from lib_events.problem import Problem
from lib_events.tables import dead_letters

STATUS_OF_REASON = {"unknown": 404, "under_way": 409, "no_event": 409}

LetterId = Annotated[int, Path(ge=1, le=2**63 - 1)]


class DeadLetterDocument(BaseModel):
    """An event a subscription gave up on; `redriven` while it waits to be handled again."""

    id: int
    subscription: str
    status: Literal["resting", "redriven"]
    position: int
    event_id: str
    event_type: str | None
    error: str
    attempts: int
    dead_at: datetime


class DeadLetterDetail(DeadLetterDocument):
    """A dead letter with its event and where the handler failed."""

    event: Any
    stack: str


class RedriveBody(BaseModel):
    """With `data`, the event is handled as if it had said that."""

    model_config = ConfigDict(extra="forbid")

    data: Any = None


def dead_letter_routes(database: Database, registry: EventRegistry, *, route_class: type[APIRoute]) -> list[BaseRoute]:
    """Return the routes under `/v1/dead-letters`."""
    router = APIRouter(tags=["dead letters"], route_class=route_class)

    @router.get("/v1/dead-letters")
    async def get_dead_letters(
        _caller: CallerOf, subscription: str | None = None, cursor: CursorText = None, limit: Limit = 50
    ) -> Page[DeadLetterDocument]:
        """List dead letters, newest first."""
        return await database.read(_list, subscription, cursor, limit)

    @router.get("/v1/dead-letters/{letter_id}")
    async def get_dead_letter(letter_id: LetterId, _caller: CallerOf) -> DeadLetterDetail:
        """Show a dead letter with its event and the stack."""
        return await database.read(_show, letter_id)

    @router.post("/v1/dead-letters/{letter_id}/redrive", status_code=202)
    async def redrive_dead_letter(
        letter_id: LetterId, _caller: CallerOf, body: RedriveBody | None = None
    ) -> DeadLetterDetail:
        """Have the event handled again; failing once more it rests here with the new reason."""
        return await database.transact(_redrive, letter_id, _edit(registry, body))

    @router.post("/v1/dead-letters/{letter_id}/discard", status_code=204)
    async def discard_dead_letter(letter_id: LetterId, _caller: CallerOf) -> Response:
        """Let the event go."""
        await database.transact(_discard, letter_id)
        return Response(status_code=204)

    return router.routes


def _edit(registry: EventRegistry, body: RedriveBody | None) -> Callable[[Event], Event] | None:
    """What to make of the event, if anything."""
    if body is None or "data" not in body.model_fields_set:
        return None

    def edit(event: Event) -> Event:
        edited = replace(event, data=body.data)
        try:
            registry.check(edited)
        except EventRejected as rejected:
            raise refusal(rejected) from rejected
        return edited

    return edit


def _list(connection: Connection, subscription: str | None, cursor: str | None, limit: int) -> Page[DeadLetterDocument]:
    before = decode_cursor(cursor, int)
    # What its handler wants later is tried again by itself.
    query = select(dead_letters).where(dead_letters.c.deferred_attempts == 0)
    if subscription is not None:
        query = query.where(dead_letters.c.durable == subscription)
    if before is not None:
        query = query.where(dead_letters.c.id < before[0])
    query = query.order_by(dead_letters.c.id.desc()).limit(limit + 1)
    rows, last = cut(connection.execute(query).all(), limit)
    next_cursor = encode_cursor(last.id) if last is not None else None
    return Page(items=[DeadLetterDocument(**_describe(row)) for row in rows], next_cursor=next_cursor)


def _show(connection: Connection, letter_id: int) -> DeadLetterDetail:
    row = connection.execute(select(dead_letters).where(dead_letters.c.id == letter_id)).first()
    if row is None:
        raise _problem(DeadLetterRefused("unknown", f"there is no dead letter {letter_id}"))
    event = None if row.body is None else from_json(row.body)
    return DeadLetterDetail(**_describe(row), event=event, stack=row.stack)


def _redrive(connection: Connection, letter_id: int, edit: Callable[[Event], Event] | None) -> DeadLetterDetail:
    try:
        redrive(connection, letter_id, edit)
    except DeadLetterRefused as refused:
        raise _problem(refused) from refused
    return _show(connection, letter_id)


def _discard(connection: Connection, letter_id: int) -> None:
    try:
        discard(connection, letter_id)
    except DeadLetterRefused as refused:
        raise _problem(refused) from refused


def _describe(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.id,
        "subscription": row.durable,
        "status": "resting" if row.redriven_at is None else "redriven",
        "position": row.position,
        "event_id": row.event_id,
        "event_type": row.type,
        "error": row.error,
        "attempts": row.attempts,
        "dead_at": to_datetime(row.dead_at),
    }


def _problem(refused: DeadLetterRefused) -> Problem:
    kind = "not-found" if refused.reason == "unknown" else "dead-letter-" + refused.reason.replace("_", "-")
    return Problem(STATUS_OF_REASON[refused.reason], kind, detail=refused.detail)
