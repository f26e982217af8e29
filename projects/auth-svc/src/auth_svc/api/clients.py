"""`/v1/admin/clients`: the programs that may ask for tokens."""

from dataclasses import replace
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request

from auth_svc import opaque
from auth_svc.api.administrator import PAGE, Administrator, Cursor, Limit, administrator, invalid
from auth_svc.api.client_views import ClientBody, ClientPatch, ClientView, as_columns
from auth_svc.api.views import WITHOUT_NUL, Page
from auth_svc.clients import clients
from auth_svc.clients.client import BY_SECRET, CODE, DEVICE, Client, ClientRejected
from auth_svc.clients.clients import ClientUnknown
from auth_svc.clients.keys import KeysRejected, read_key_set
from auth_svc.service import AuthService, service_of
from lib_events.problem import Problem

router = APIRouter(prefix="/v1/admin", tags=["clients"], dependencies=[Depends(administrator)])

# What is decided here of a client that is named by its document.
OF_DOCUMENTS = frozenset(("consent", "access_token_seconds"))

# A client may be named by a URL, so an id may have slashes.
ClientId = Annotated[str, Path(pattern=WITHOUT_NUL)]


@router.get("/clients")
async def list_clients(request: Request, cursor: Cursor = None, limit: Limit = PAGE) -> Page[ClientView]:
    """List clients by id."""
    found = await service_of(request).database.read(clients.page, cursor, limit)
    more = found[-1].id if len(found) == limit else None
    return Page(items=[ClientView.of(client) for client in found], next_cursor=more)


@router.post("/clients", status_code=201)
async def create_client(request: Request, body: ClientBody, by: Administrator) -> ClientView:
    """Make a client; its secret is in this answer and nowhere else."""
    service = service_of(request)
    secret = opaque.new_secret() if body.needs_secret else None
    actor = by.actor
    digest = opaque.digest(secret) if secret else None
    client = Client(secret_digest=digest, created_at=actor.at, **as_columns(body.model_dump(exclude={"public"})))
    await _check_keys(service, client)
    return ClientView.of(await by.commit(clients.register, client), secret)


@router.get("/clients/{client:path}")
async def show_client(request: Request, client: ClientId) -> ClientView:
    """Show a client."""
    return ClientView.of(await _find(service_of(request), client))


@router.patch("/clients/{client:path}")
async def change_client(request: Request, client: ClientId, body: ClientPatch, by: Administrator) -> ClientView:
    """Change a client; tokens that say more than it may have now are refused.

    One that is to prove itself with a secret and has none gets one, in this answer and nowhere else.
    """
    service = service_of(request)
    known, secret = _changeable(await _find(service, client)), opaque.new_secret()
    _check_decided_here(known, body)
    alter = partial(_altered, body, secret)
    await _check_keys(service, alter(known))
    changed = await by.commit(clients.change, client, alter)
    return ClientView.of(changed, secret if changed.secret_digest == opaque.digest(secret) else None)


@router.delete("/clients/{client:path}", status_code=204)
async def remove_client(request: Request, client: ClientId, by: Administrator) -> None:
    """Remove a client; whatever people allowed it ends."""
    service = service_of(request)
    _changeable(await _find(service, client))
    await by.commit(clients.remove, client)


@router.post("/clients/{client:path}/rotate-secret")
async def rotate_client_secret(request: Request, client: ClientId, by: Administrator) -> ClientView:
    """Give a client a new secret; the old one is worth nothing at once."""
    service, secret = service_of(request), opaque.new_secret()
    _changeable(await _find(service, client))
    try:
        changed = await by.commit(clients.rotate_secret, client, secret)
    except ClientRejected as error:
        raise Problem(409, "no-secret", detail=error.detail) from error
    return ClientView.of(changed, secret)


@router.post("/clients/{client:path}/disable")
async def disable_client(request: Request, client: ClientId, by: Administrator) -> ClientView:
    """Stop a client from getting tokens and refuse those it holds."""
    service = service_of(request)
    _changeable(await _find(service, client))
    return ClientView.of(await by.commit(clients.disable, client))


@router.post("/clients/{client:path}/enable")
async def enable_client(request: Request, client: ClientId, by: Administrator) -> ClientView:
    """Let a disabled client go on."""
    service = service_of(request)
    await _find(service, client)
    return ClientView.of(await by.commit(clients.enable, client))


async def _find(service: AuthService, client_id: str) -> Client:
    client = await service.database.read(clients.find, client_id)
    if client is None:
        raise ClientUnknown(client_id)
    return client


def _changeable(client: Client) -> Client:
    if client.origin == "own":
        detail = f"the client {client.id!r} is one of our own: this release and its settings say what it is"
        raise Problem(409, "own-client", detail=detail)
    if client.resource is not None:
        raise Problem(409, "resource-client", detail=f"the client {client.id!r} belongs to its resource; change that")
    return client


def _altered(body: ClientPatch, secret: str, client: Client) -> Client:
    """Return the client with what was sent; with `secret` if it needs its first one, without where it needs none."""
    client = body.apply(client)
    if client.auth_method not in (None, *BY_SECRET):
        return replace(client, secret_digest=None)
    if client.auth_method is None or client.secret_digest is not None:
        return client
    return replace(client, secret_digest=opaque.digest(secret))


def _check_decided_here(client: Client, body: ClientPatch) -> None:
    """A client that is named by its document is what that says, and it is read again within the hour."""
    if client.origin == "document" and (told := sorted(body.model_fields_set - OF_DOCUMENTS)):
        detail = f"{', '.join(told)} of {client.id} come from its document; disable the client, or change the document"
        raise Problem(409, "document-client", detail=detail)


async def _check_keys(service: AuthService, client: Client) -> None:
    """Check the client's keys, and have a key of ours to sign its ID tokens with."""
    if client.jwks is not None:
        try:
            read_key_set(client.jwks)
        except KeysRejected as error:
            raise invalid("jwks", str(error)) from error
    if {CODE, DEVICE} & set(client.grant_types):  # others get no ID tokens
        await service.key_rotation.ensure(client.id_token_algorithm)
