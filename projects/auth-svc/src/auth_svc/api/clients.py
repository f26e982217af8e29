"""`/v1/admin/clients`: the programs that may ask for tokens."""

from fastapi import APIRouter, Depends, Request

from auth_svc import clients, opaque
from auth_svc.api.administrator import PAGE, Administrator, Cursor, Limit, administrator
from auth_svc.api.views import ClientBody, ClientView, Page
from auth_svc.clients import Client
from auth_svc.service import service_of

router = APIRouter(prefix="/v1/admin", tags=["clients"], dependencies=[Depends(administrator)])


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
    secret = None if body.public else opaque.new_secret()
    actor = service.actor(request, by.subject)
    client = Client(
        id=body.id,
        name=body.name,
        secret_digest=opaque.digest(secret) if secret else None,
        redirect_uris=tuple(body.redirect_uris),
        post_logout_redirect_uris=tuple(body.post_logout_redirect_uris),
        grant_types=tuple(body.grant_types),
        scopes=frozenset(body.scopes),
        roles=frozenset(body.roles),
        access_token_seconds=body.access_token_seconds,
        created_at=actor.at,
    )
    return ClientView.of(await service.database.transact(clients.register, client, actor), secret)
