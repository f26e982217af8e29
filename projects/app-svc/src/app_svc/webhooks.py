"""The REST of webhooks: have events sent to a URL of one's own, and see how that goes."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from starlette.routing import BaseRoute

from app_svc.authorization import Caller, CallerOf
from app_svc.event_visibility import check_types
from app_svc.page import STORABLE, CursorText, Limit, Page, cut, decode_cursor, encode_cursor
from app_svc.service import Service
from lib_events import tables
from lib_events.clock import to_datetime
from lib_events.database import Connection
from lib_events.http.destinations import URL_LIMIT, DestinationRefused
from lib_events.problem import Problem
from lib_events.webhooks import webhook as commands
from lib_events.webhooks.webhook import NewWebhook, TooManyWebhooks, Webhook, new_id, new_secret

MICROS_PER_MILLISECOND = 1_000
# Shown once: no cache may keep it.
NOT_CACHED = {"cache-control": "no-store"}

WebhookId = Annotated[str, Path(max_length=64, pattern=STORABLE)]
TypeName = Annotated[str, Field(max_length=200, pattern=r"^(\*|[a-z0-9_-]+(\.[a-z0-9_-]+)*(\.\*)?)$")]
Types = Annotated[list[TypeName], Field(min_length=1, max_length=50, description="Names, or patterns such as shop.*")]
Subject = Annotated[str, Field(min_length=1, max_length=256, pattern=STORABLE)]
Url = Annotated[str, Field(max_length=URL_LIMIT, description="https, at a public address")]


class WebhookBody(BaseModel):
    """Which events to send where."""

    model_config = ConfigDict(extra="forbid")

    url: Url
    types: Types
    subject: Subject | None = None


class ChangeBody(BaseModel):
    """What is to be different; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    url: Url | None = None
    types: Types | None = None
    subject: Subject | None = None


class WebhookDocument(BaseModel):
    """A webhook; `state` is interrupted while a failing receiver is left alone, until `next_attempt_at`."""

    id: str
    url: str
    types: list[str]
    subject: str | None
    owner: str
    state: str
    reason: str | None
    failures: int = Field(description="In a row")
    next_attempt_at: datetime | None
    previous_secret_until: datetime | None
    created_at: datetime
    changed_at: datetime


class NewSecretDocument(WebhookDocument):
    """A webhook with its new secret, which is never shown again."""

    secret: str


class DeliveryDocument(BaseModel):
    """One attempt at an event."""

    event_id: str
    event_type: str
    attempt: int
    sent_at: datetime
    duration_ms: float
    status: int | None
    error: str | None


class TestDocument(BaseModel):
    """What became of a test."""

    delivered: bool
    status: int | None
    duration_ms: float
    error: str | None


def webhook_routes(service: Service, *, route_class: type[APIRoute]) -> list[BaseRoute]:
    """Return the routes under `/v1/webhooks`."""
    router = APIRouter(tags=["webhooks"], route_class=route_class)
    routes = WebhookRoutes(service)
    one = "/v1/webhooks/{webhook_id}"
    router.get("/v1/webhooks")(routes.list)
    router.post("/v1/webhooks", status_code=201)(routes.create)
    router.get(one)(routes.show)
    router.patch(one)(routes.change)
    router.delete(one, status_code=204)(routes.delete)
    router.post(one + "/rotate")(routes.rotate)
    router.post(one + "/pause")(routes.pause)
    router.post(one + "/resume")(routes.resume)
    router.post(one + "/test")(routes.test)
    router.get(one + "/deliveries")(routes.deliveries)
    return router.routes


class WebhookRoutes:
    """One method for each route."""

    def __init__(self, service: Service) -> None:
        self._database = service.database
        self._webhooks = service.webhooks
        self._key = service.sealing_key
        self._destinations = service.settings.destinations

    async def list(self, caller: CallerOf, cursor: CursorText = None, limit: Limit = 50) -> Page[WebhookDocument]:
        """List my webhooks (an operator sees all), newest first."""
        return await self._database.read(_list, caller, cursor, limit)

    async def create(self, body: WebhookBody, caller: CallerOf, response: Response) -> NewSecretDocument:
        """Send events from now on. The answer shows the secret that signs them, once."""
        self._check(caller, body.url, body.types)
        webhook_id, secret = new_id(), new_secret()
        new = NewWebhook(
            id=webhook_id,
            url=body.url,
            types=tuple(body.types),
            subject=body.subject,
            owner=caller.subject,
            owner_roles=tuple(sorted(caller.principal.roles)),
            secret=self._seal(webhook_id, secret),
        )
        try:
            webhook = await self._database.transact(commands.create, new)
        except TooManyWebhooks as refused:
            raise Problem(409, "too-many-webhooks", "There are too many webhooks", str(refused)) from refused
        response.headers.update(NOT_CACHED | {"location": f"/v1/webhooks/{webhook_id}"})
        return _with_secret(webhook, secret)

    async def show(self, webhook_id: WebhookId, caller: CallerOf) -> WebhookDocument:
        """Show one webhook."""
        return _describe(await self._find(webhook_id, caller))

    async def change(self, webhook_id: WebhookId, body: ChangeBody, caller: CallerOf) -> WebhookDocument:
        """Change where it goes or what it wants; it counts from the next attempt on."""
        webhook = await self._find(webhook_id, caller)
        values = body.model_dump(exclude_unset=True)
        # Only a subject can be taken away.
        kept = {name: value for name, value in values.items() if value is not None or name == "subject"}
        self._check(caller, kept.get("url", webhook.url), kept.get("types", webhook.types))
        return _describe(_still(await self._database.transact(commands.change, webhook_id, kept)))

    async def delete(self, webhook_id: WebhookId, caller: CallerOf) -> None:
        """Send nothing more, and forget it with its deliveries and dead letters."""
        await self._find(webhook_id, caller)
        await self._database.transact(commands.remove, webhook_id)

    async def rotate(self, webhook_id: WebhookId, caller: CallerOf, response: Response) -> NewSecretDocument:
        """Make a new secret, shown once; for a day the last one signs too."""
        await self._find(webhook_id, caller)
        secret = new_secret()
        sealed = self._seal(webhook_id, secret)
        webhook = _still(await self._database.transact(commands.rotate, webhook_id, sealed))
        response.headers.update(NOT_CACHED)
        return _with_secret(webhook, secret)

    async def pause(self, webhook_id: WebhookId, caller: CallerOf) -> WebhookDocument:
        """Send nothing until it is resumed; events wait in the log."""
        await self._find(webhook_id, caller)
        reason = f"paused by {caller.subject}"
        return _describe(_still(await self._database.transact(commands.pause, webhook_id, reason)))

    async def resume(self, webhook_id: WebhookId, caller: CallerOf) -> WebhookDocument:
        """Send again from where it stood: what is paused, disabled or interrupted."""
        await self._find(webhook_id, caller)
        return _describe(_still(await self._database.transact(commands.resume, webhook_id)))

    async def test(self, webhook_id: WebhookId, caller: CallerOf) -> TestDocument:
        """Send an `evs.webhook.tested` event at once and tell what came back."""
        outcome = await self._webhooks.test(await self._find(webhook_id, caller))
        return TestDocument(
            delivered=outcome.error is None,
            status=outcome.status,
            duration_ms=outcome.duration_micros / MICROS_PER_MILLISECOND,
            error=outcome.error,
        )

    async def deliveries(self, webhook_id: WebhookId, caller: CallerOf, limit: Limit = 50) -> Page[DeliveryDocument]:
        """Show the last attempts, newest first; about a hundred are kept."""
        await self._find(webhook_id, caller)
        return await self._database.read(_deliveries, webhook_id, limit)

    def _check(self, caller: Caller, url: str, types: Sequence[str]) -> None:
        check_types(caller, types)
        try:
            self._destinations.check(url)
        except DestinationRefused as refused:
            errors = [{"pointer": "/url", "detail": str(refused)}]
            raise Problem(422, "invalid-input", "The input is not valid", f"/url: {refused}", errors=errors) from None

    def _seal(self, webhook_id: str, secret: str) -> bytes:
        return self._key.seal(secret, purpose=commands.DURABLE_PREFIX + webhook_id)

    async def _find(self, webhook_id: str, caller: Caller) -> Webhook:
        webhook = await self._database.read(commands.find, webhook_id)
        if webhook is None or not (caller.sees_all or webhook.owner == caller.subject):
            raise _not_found()
        return webhook


def _list(connection: Connection, caller: Caller, cursor: str | None, limit: int) -> Page[WebhookDocument]:
    table = tables.webhooks
    query = select(table).order_by(table.c.created_at.desc(), table.c.id.desc()).limit(limit + 1)
    if not caller.sees_all:
        query = query.where(table.c.owner == caller.subject)
    if (before := decode_cursor(cursor, int, str)) is not None:
        created_at, webhook_id = before
        is_older = (table.c.created_at < created_at) | ((table.c.created_at == created_at) & (table.c.id < webhook_id))
        query = query.where(is_older)
    rows, last = cut(connection.execute(query).all(), limit)
    items = [_describe(commands.read_row(row)) for row in rows]
    return Page(items=items, next_cursor=None if last is None else encode_cursor(last.created_at, last.id))


def _deliveries(connection: Connection, webhook_id: str, limit: int) -> Page[DeliveryDocument]:
    table = tables.webhook_deliveries
    query = select(table).where(table.c.webhook == webhook_id).order_by(table.c.id.desc()).limit(limit)
    return Page(items=[_describe_delivery(row) for row in connection.execute(query)])


def _describe_delivery(row: Any) -> DeliveryDocument:
    return DeliveryDocument(
        event_id=row.event_id,
        event_type=row.event_type,
        attempt=row.attempt,
        sent_at=to_datetime(row.sent_at),
        duration_ms=row.duration_micros / MICROS_PER_MILLISECOND,
        status=row.status,
        error=row.error,
    )


def _describe(webhook: Webhook) -> WebhookDocument:
    is_interrupted = webhook.state == "active" and webhook.interrupted_until is not None
    return WebhookDocument(
        id=webhook.id,
        url=webhook.url,
        types=list(webhook.types),
        subject=webhook.subject,
        owner=webhook.owner,
        state="interrupted" if is_interrupted else webhook.state,
        reason=webhook.reason,
        failures=webhook.failures,
        next_attempt_at=_moment(webhook.interrupted_until) if is_interrupted else None,
        previous_secret_until=_moment(webhook.previous_until),
        created_at=to_datetime(webhook.created_at),
        changed_at=to_datetime(webhook.changed_at),
    )


def _with_secret(webhook: Webhook, secret: str) -> NewSecretDocument:
    return NewSecretDocument(**_describe(webhook).model_dump(), secret=secret)


def _moment(micros: int | None) -> datetime | None:
    return None if micros is None else to_datetime(micros)


def _still(webhook: Webhook | None) -> Webhook:
    """What a command changed, unless somebody deleted it in the same moment."""
    if webhook is None:
        raise _not_found()
    return webhook


def _not_found() -> Problem:
    return Problem(404, "webhook-not-found", "There is no such webhook", "webhook must be one of yours; list them")
