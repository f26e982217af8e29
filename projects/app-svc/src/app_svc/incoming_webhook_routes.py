"""The REST of webhooks in: operators say which there are; strangers send to them, with a signature for a token."""

import re
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import delete, insert, select, update
from standardwebhooks import Webhook as Verifier
from starlette.routing import BaseRoute

from app_svc.authorization import CallerOf
from app_svc.event_intake import EventIntake
from app_svc.incoming_webhooks import SECRET_LENGTH, IncomingWebhook, IncomingWebhooks, Scheme, find
from app_svc.json_pointer import PATTERN as POINTER
from app_svc.page import STORABLE, CursorText, Limit, Page, cut, decode_cursor, encode_cursor
from app_svc.service import Service
from app_svc.tables import incoming_webhooks
from app_svc.webhooks import NOT_CACHED
from lib_events.clock import SystemClock, to_datetime
from lib_events.database import Connection
from lib_events.event import is_reserved
from lib_events.problem import Problem
from lib_events.webhooks.webhook import new_secret

STANDARD_SECRET = re.compile(r"(whsec_)?[A-Za-z0-9+/]+={0,2}")

# A signature is nothing that OpenAPI has a word for.
SIGNED_REQUEST: dict[str, Any] = {
    "security": [],
    "requestBody": {"required": True, "content": {"application/json": {"schema": {}}}},
}

Name = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Pointer = Annotated[str, Field(max_length=200, pattern=POINTER, description="JSON Pointer (RFC 6901)")]


class IncomingBody(BaseModel):
    """How to know who sends, and what becomes of it."""

    model_config = ConfigDict(extra="forbid")

    scheme: Scheme
    event_type: str = Field(max_length=200, description="A registered type of your own")
    id_pointer: Pointer | None = None
    subject_pointer: Pointer | None = None
    secret: str | None = Field(
        default=None,
        max_length=200,
        pattern=STORABLE,
        description="The sender's. Left out, a new webhook gets one, and an old one keeps its own",
    )


class IncomingDocument(BaseModel):
    """A webhook in; `secret` is there once, when it was made here."""

    name: str
    path: str
    source: str
    scheme: Scheme
    event_type: str
    id_pointer: str | None
    subject_pointer: str | None
    owner: str
    created_at: datetime
    changed_at: datetime
    secret: str | None = None


class Thanks(BaseModel):
    """The event that was stored."""

    id: str
    source: str
    type: str


def incoming_webhook_routes(service: Service, *, route_class: type[APIRoute]) -> list[BaseRoute]:
    """Return the routes under `/v1/webhooks/in`; the one that receives is guarded by signatures."""
    routes = IncomingRoutes(service)
    one = "/v1/webhooks/in/{name}"
    signed = APIRouter(tags=["webhooks in"])
    signed.post(one, status_code=202, openapi_extra=SIGNED_REQUEST)(routes.receive)
    guarded = APIRouter(tags=["webhooks in"], route_class=route_class)
    guarded.get("/v1/webhooks/in")(routes.list)
    guarded.get(one)(routes.show)
    guarded.put(one)(routes.put)
    guarded.delete(one, status_code=204)(routes.delete)
    return [*signed.routes, *guarded.routes]


class IncomingRoutes:
    """One method for each route."""

    def __init__(self, service: Service) -> None:
        self._database = service.database
        self._registry = service.event_registry
        self._key = service.sealing_key
        intake = EventIntake(service.database, service.event_registry)
        self._incoming = IncomingWebhooks(service.database, intake, service.sealing_key)

    async def receive(self, request: Request, name: str) -> Thanks:
        """Take in a signed request as an event; it is stored before the answer, and once however often it is sent."""
        event = await self._incoming.receive(name, request.headers, await request.body())
        return Thanks(id=event.id, source=event.source, type=event.type)

    async def list(self, _caller: CallerOf, cursor: CursorText = None, limit: Limit = 50) -> Page[IncomingDocument]:
        """List the webhooks in, by name."""
        return await self._database.read(_list, cursor, limit)

    async def show(self, name: Name, _caller: CallerOf) -> IncomingDocument:
        """Show one."""
        return _describe(_exists(await self._database.read(find, name)))

    async def put(self, name: Name, body: IncomingBody, caller: CallerOf, response: Response) -> IncomingDocument:
        """Make one, or change it. A secret that is made here is shown once."""
        self._check(body)
        known = await self._database.read(find, name)
        if known is not None and known.scheme != body.scheme and body.secret is None:
            raise _invalid("/secret", "must be given with another scheme")
        made = new_secret() if body.secret is None and known is None else None
        values = body.model_dump(exclude={"secret"})
        if secret := body.secret or made:
            values["secret"] = self._key.seal(secret, purpose=f"incoming-webhook:{name}")
        webhook = await self._database.transact(_put, name, caller.subject, values)
        response.headers.update(NOT_CACHED)
        return _describe(webhook).model_copy(update={"secret": made})

    async def delete(self, name: Name, _caller: CallerOf) -> None:
        """Take in nothing more under this name."""
        _exists(await self._database.transact(_delete, name))

    def _check(self, body: IncomingBody) -> None:
        if is_reserved(body.event_type) or self._registry.get(body.event_type) is None:
            raise _invalid(
                "/event_type", "must be a registered type of your own; declare EventType(…) in a workflow's file"
            )
        if body.secret is None:
            return
        if len(body.secret) < SECRET_LENGTH:
            raise _invalid("/secret", f"must have at least {SECRET_LENGTH} characters")
        if body.scheme == "standard-webhooks" and not _is_standard_secret(body.secret):
            raise _invalid("/secret", "must be whsec_ and base64 (Standard Webhooks)")


def _put(connection: Connection, name: str, owner: str, values: dict[str, Any]) -> IncomingWebhook:
    now = SystemClock().micros()
    mine = incoming_webhooks.c.name == name
    changed = connection.execute(update(incoming_webhooks).where(mine).values(**values, changed_at=now))
    if not changed.rowcount:
        made = {"name": name, "owner": owner, "created_at": now, "changed_at": now}
        connection.execute(insert(incoming_webhooks).values(**made, **values))
    return _exists(find(connection, name))


def _delete(connection: Connection, name: str) -> IncomingWebhook | None:
    known = find(connection, name)
    connection.execute(delete(incoming_webhooks).where(incoming_webhooks.c.name == name))
    return known


def _list(connection: Connection, cursor: str | None, limit: int) -> Page[IncomingDocument]:
    table = incoming_webhooks
    query = select(table).order_by(table.c.name).limit(limit + 1)
    if (after := decode_cursor(cursor, str)) is not None:
        query = query.where(table.c.name > after[0])
    rows, last = cut(connection.execute(query).all(), limit)
    items = [_describe(IncomingWebhook(**row._mapping)) for row in rows]
    return Page(items=items, next_cursor=None if last is None else encode_cursor(last.name))


def _describe(webhook: IncomingWebhook) -> IncomingDocument:
    return IncomingDocument(
        name=webhook.name,
        path=f"/v1/webhooks/in/{webhook.name}",
        source=webhook.source,
        scheme=webhook.scheme,
        event_type=webhook.event_type,
        id_pointer=webhook.id_pointer,
        subject_pointer=webhook.subject_pointer,
        owner=webhook.owner,
        created_at=to_datetime(webhook.created_at),
        changed_at=to_datetime(webhook.changed_at),
    )


def _exists(webhook: IncomingWebhook | None) -> IncomingWebhook:
    if webhook is None:
        detail = "name must be of a webhook in that there is; list them"
        raise Problem(404, "webhook-not-found", "There is no such webhook", detail)
    return webhook


def _is_standard_secret(secret: str) -> bool:
    try:
        Verifier(secret)
    except ValueError:
        return False
    return STANDARD_SECRET.fullmatch(secret) is not None  # the library passes over what is no base64


def _invalid(pointer: str, detail: str) -> Problem:
    errors = [{"pointer": pointer, "detail": detail}]
    return Problem(422, "invalid-input", "The input is not valid", f"{pointer}: {detail}", errors=errors)
