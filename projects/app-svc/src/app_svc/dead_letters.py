"""The REST of dead letters: events a subscription gave up on, kept with the reason."""

from fastapi import APIRouter
from fastapi.routing import APIRoute
from sqlalchemy import select

from app_svc.authorization import CallerOf
from app_svc.documents import DeadLetterDocument, describe_dead_letter
from app_svc.page import CursorText, Limit, Page, cut, decode_cursor, encode_cursor
from lib_events.database import Connection, Database
from lib_events.tables import dead_letters


def dead_letter_routes(database: Database, *, route_class: type[APIRoute]) -> APIRouter:
    """Return the routes under `/v1/dead-letters`."""
    router = APIRouter(tags=["dead letters"], route_class=route_class)

    @router.get("/v1/dead-letters")
    async def get_dead_letters(
        _caller: CallerOf, cursor: CursorText = None, limit: Limit = 50
    ) -> Page[DeadLetterDocument]:
        """List dead letters, newest first."""
        return await database.read(_list, cursor, limit)

    return router


def _list(connection: Connection, cursor: str | None, limit: int) -> Page[DeadLetterDocument]:
    before = decode_cursor(cursor, int)
    # What its handler wants later is tried again by itself.
    query = select(dead_letters).where(dead_letters.c.deferred_attempts == 0)
    if before is not None:
        query = query.where(dead_letters.c.id < before[0])
    query = query.order_by(dead_letters.c.id.desc()).limit(limit + 1)
    rows, last = cut(connection.execute(query).all(), limit)
    next_cursor = encode_cursor(last.id) if last is not None else None
    return Page(items=[describe_dead_letter(row) for row in rows], next_cursor=next_cursor)
