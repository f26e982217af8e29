"""`/v1/admin/users/{user}/sessions` and `…/consents`: where a person is signed in, and what they have allowed."""

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel

from auth_svc.api.administrator import Administrator, Named, administrator
from auth_svc.api.users import find_user
from auth_svc.api.views import Page
from auth_svc.people import account_changes, connected_apps, consents, sessions
from auth_svc.service import service_of
from lib_events.clock import to_datetime
from lib_events.problem import Problem

router = APIRouter(prefix="/v1/admin", tags=["users"], dependencies=[Depends(administrator)])


class SessionView(BaseModel):
    """One sign-in with one browser."""

    id: str
    authenticated_at: str
    expires_at: str
    address: str | None
    user_agent: str | None


class ConsentView(BaseModel):
    """What a person has allowed a client."""

    client: str
    scopes: list[str]
    resources: list[str]


@router.get("/users/{user}/sessions")
async def list_sessions(request: Request, user: Named) -> Page[SessionView]:
    """List where a user is signed in with a browser, newest first."""
    service = service_of(request)
    account = await find_user(service, user)
    found = await service.database.read(sessions.alive_of_user, account.id, service.clock.micros())
    items = [
        SessionView(
            id=session.id,
            authenticated_at=to_datetime(session.authenticated_at).isoformat(),
            expires_at=to_datetime(session.expires_at).isoformat(),
            address=session.address,
            user_agent=session.user_agent,
        )
        for session in found
    ]
    return Page(items=items)


@router.delete("/users/{user}/sessions", status_code=204)
async def end_sessions(request: Request, user: Named, by: Administrator) -> None:
    """Sign a user out everywhere, of what outlives browser sessions, too."""
    service = service_of(request)
    account = await find_user(service, user)
    await service.database.transact(account_changes.end_sessions, account.id, service.actor(request, by.subject))


@router.delete("/users/{user}/sessions/{session}", status_code=204)
async def end_session(request: Request, user: Named, session: Named, by: Administrator) -> None:
    """End one session and the tokens that came from it."""
    service = service_of(request)
    account = await find_user(service, user)
    actor = service.actor(request, by.subject)
    await service.database.transact(account_changes.end_session, account.id, session, actor)


@router.get("/users/{user}/consents")
async def list_consents(request: Request, user: Named) -> Page[ConsentView]:
    """List what a user has allowed which client."""
    service = service_of(request)
    account = await find_user(service, user)
    found = await service.database.read(consents.of_user, account.id)
    items = [
        ConsentView(client=client, scopes=sorted(consent.scopes), resources=sorted(consent.resources))
        for client, consent in found
    ]
    return Page(items=items)


@router.delete("/users/{user}/consents/{client}", status_code=204)
async def withdraw_consent(request: Request, user: Named, client: Named, by: Administrator) -> None:
    """Withdraw what a user has allowed a client, and end what came of it."""
    service = service_of(request)
    account = await find_user(service, user)
    actor = service.actor(request, by.subject)
    if not await service.database.transact(connected_apps.withdraw, account.id, client, actor):
        raise Problem(404, "consent-unknown", detail=f"the user has allowed {client!r} nothing")
