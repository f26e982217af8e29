"""`/v1/revocations`: what resource servers must refuse, read from the event log after a cursor."""

import asyncio
from collections.abc import Iterable, Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from auth_svc.endpoints.oauth_http import NO_STORE, authenticate, refusal, respond
from auth_svc.parameters import SECONDS, authorization_of
from auth_svc.protocol.families import MICROS
from auth_svc.protocol.request import ProtocolRequest
from auth_svc.service import AuthService, service_of
from lib_auth.revocations import EVENT_TYPES, SLACK_SECONDS, Revocation, revocations_of
from lib_events.database import Connection
from lib_events.event import Event
from lib_events.event_log import PLACED_TOPIC, Cursor, CursorRejected, check_cursor, read_after, read_unplaced
from lib_events.lifecycle import first_of
from lib_events.problem import Problem

PAGE = 500
LONGEST_WAIT_SECONDS = 20
TYPES = tuple(event_type.name for event_type in EVENT_TYPES)


async def revocation_feed(request: Request) -> Response:
    """Answer with the revocations after `after`; `wait` holds the answer until there is one, some seconds long."""
    service = service_of(request)
    client = await authenticate(service, ProtocolRequest("GET", [], authorization_of(request)))
    if client.resource is None:
        return respond(refusal("unauthorized_client", "Only resource servers may read revocations.", status=403))
    after, wait = _read_query(request)
    try:
        page = await _follow(service, after, wait)
    except CursorRejected as error:
        raise Problem(410, "cursor-gone", "The cursor is gone", str(error)) from error
    return JSONResponse(page, headers=NO_STORE)


def _read_query(request: Request) -> tuple[Cursor | None, float]:
    after, wait = request.query_params.get("after"), request.query_params.get("wait", "0")
    try:
        cursor = Cursor.parse(after) if after else None
    except CursorRejected as error:
        raise Problem(400, "cursor-invalid", "The cursor is not one", str(error)) from error
    if not SECONDS.fullmatch(wait):
        raise Problem(400, "wait-invalid", detail="wait must be a number of seconds")
    return cursor, min(int(wait), LONGEST_WAIT_SECONDS)


async def _follow(service: AuthService, after: Cursor | None, wait: float) -> dict[str, object]:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait
    placed = asyncio.Event()
    unsubscribe = service.database.on_notify(PLACED_TOPIC, placed.set)
    try:
        while True:
            placed.clear()
            now = service.clock.micros() // MICROS - SLACK_SECONDS
            found, unplaced, after, at_head = await service.database.read(_read, after, now)
            if found or not at_head or loop.time() >= deadline or service.stopping.is_set():
                items = [item.to_dict() for item in (*found, *unplaced)]
                return {"items": items, "next_cursor": str(after), "head": at_head}
            # Then read once more: the answer says what is known when it is sent.
            await first_of(placed, service.stopping, seconds=deadline - loop.time())
    finally:
        unsubscribe()


def _read(
    connection: Connection, after: Cursor | None, now: int
) -> tuple[Sequence[Revocation], Sequence[Revocation], Cursor, bool]:
    """Return a page, what has no place in the log yet, where the page ends and whether that is the head.

    Whoever gives places may hang, and what was revoked counts all the same: it is told at the head, and again once it
    has its place. Those of which nothing is left by whoever's clock are left out.
    """
    position = check_cursor(connection, after) if after else 0
    page = read_after(connection, position, types=TYPES, own_only=True, limit=PAGE)
    at_head = page.position >= page.head.position
    found = _alive((placed.event for placed in page.events), now)
    unplaced = _alive(read_unplaced(connection, TYPES), now) if at_head else ()
    return found, unplaced, Cursor(page.head.epoch, page.position), at_head


def _alive(events: Iterable[Event], now: int) -> Sequence[Revocation]:
    return [item for event in events for item in revocations_of(event) if item.expires_at > now]
