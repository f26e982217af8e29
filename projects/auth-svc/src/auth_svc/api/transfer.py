"""`/v1/admin/export` and `/v1/admin/import`: the whole configuration and its people as one document."""

import asyncio
from functools import partial
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import ValidationError
from pydantic_core import from_json

from auth_svc.api.administrator import Administrator, administrator
from auth_svc.api.examples import EXAMPLES
from auth_svc.audit import Actor, record
from auth_svc.endpoints.oauth_http import NO_STORE
from auth_svc.protocol import families
from auth_svc.protocol.families import MICROS
from auth_svc.rights.resources import ADMIN_SCOPES, APP_SCOPES
from auth_svc.service import service_of
from auth_svc.transfer import django, exporting, importing, keycloak
from auth_svc.transfer.document import Document, Report
from auth_svc.transfer.reading import Reading
from lib_auth.principal import Principal
from lib_events.database import Connection
from lib_events.problem import Problem, invalid_input

IMPORT_PATH = "/v1/admin/import"
FRESH_SECONDS = 300
# No other system's client gets what works with ours: a scope that is called the same means something else there.
BUILT_IN_SCOPES = APP_SCOPES | ADMIN_SCOPES
# Read by ourselves, once it is certain who sends it: 64 MiB of anybody's are too much.
BODY = {
    "requestBody": {
        "required": True,
        "description": "A document of `GET /v1/admin/export`, the export of a Keycloak realm, or Django's `dumpdata`.",
        "content": {"application/json": {"schema": {"type": ["object", "array"]}, "example": EXAMPLES["Document"]}},
    }
}

router = APIRouter(prefix="/v1/admin", tags=["transfer"], dependencies=[Depends(administrator)])


@router.get("/export", response_model=Document)
async def export_everything(request: Request, by: Administrator, *, secrets: bool = False) -> Response:
    """Return everything; with `secrets` what people and clients prove themselves with, too, after a fresh sign-in."""
    service = service_of(request)
    actor = by.actor
    if secrets and not await service.database.read(_is_fresh, by.principal, actor.at):
        raise _sign_in_again()
    key = service.sealing_key if secrets else None
    document = await service.database.read(exporting.export, service.issuer.url, actor.at, key)
    await by.commit(_record_export, secrets)
    # Large ones take a while, in which others are served.
    content = await asyncio.to_thread(partial(document.model_dump_json, exclude_none=True))
    return Response(content, media_type="application/json", headers=NO_STORE)


@router.post("/import", openapi_extra=BODY)
async def import_everything(request: Request, by: Administrator, *, dry_run: bool = False) -> Report:
    """Bring what a document says into the rows; `dry_run` says what would happen. Twice is as good as once."""
    service = service_of(request)
    scopes, content = service.issuer.resources.scopes - BUILT_IN_SCOPES, await request.body()
    await service.admin_guard.confirm(request)  # it may have been held back until they administered no more
    reading = await asyncio.to_thread(_read, content, scopes)
    for algorithm in set() if dry_run else {client.id_token_algorithm for client in reading.document.clients}:
        await service.key_rotation.ensure(algorithm)
    report = await importing.run(
        by.commit,
        reading,
        issuer=service.issuer.url,
        sealing_key=service.sealing_key,
        dry_run=dry_run,
    )
    await service.definitions.refresh()
    await service.decoys.refresh()
    return report


def _read(content: bytes, scopes: frozenset[str]) -> Reading:
    """Read a document of ours, Keycloak's or Django's; raises the `Problem` 422."""
    try:
        found: Any = from_json(content)
    except ValueError as error:
        raise Problem(422, "invalid-input", detail=f"body must be JSON (RFC 8259): {error}") from error
    try:
        if isinstance(found, dict) and keycloak.is_realm(found):
            return keycloak.read_realm(found, scopes)
        if django.is_dump(found):
            return django.read_dump(found)
        return Reading(Document.model_validate(found))
    except ValidationError as error:
        raise invalid_input(error.errors(include_url=False, include_input=False), within=("body",)) from error


def _is_fresh(connection: Connection, principal: Principal, now: int) -> bool:
    family = families.find(connection, principal.family_id) if principal.family_id else None
    return family is not None and abs(now - family.authenticated_at) <= FRESH_SECONDS * MICROS


def _sign_in_again() -> Problem:
    """RFC 9470 section 3: which sign-in would do."""
    challenge = f'Bearer error="insufficient_user_authentication", max_age="{FRESH_SECONDS}"'
    return Problem(
        401,
        "sign-in-too-old",
        "Sign in again first",
        "secrets are only for whoever has signed in within the last 5 minutes; sign in again: evs auth login --admin",
        headers={"www-authenticate": challenge},
    )


def _record_export(connection: Connection, secrets: bool, actor: Actor) -> None:  # noqa: FBT001
    record(connection, actor, "configuration.exported", secrets=secrets)
