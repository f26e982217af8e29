"""`/v1/admin/users/{user}/sessions`, `…/consents`, `…/delegations`: where a person is signed in, what acts for them."""

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from auth_svc.api.administrator import Administrator, Named, administrator
from auth_svc.api.users import find_user
from auth_svc.api.views import Page
from auth_svc.people import account_changes, connected_apps, consents, delegations, sessions
from auth_svc.people.delegations import Delegation
from auth_svc.proving.assurance import UNTOLD
from auth_svc.service import service_of
from lib_events.clock import to_datetime
from lib_events.problem import Problem

router = APIRouter(prefix="/v1/admin", tags=["users"], dependencies=[Depends(administrator)])


class SessionView(BaseModel):
    """One sign-in with one browser."""

    id: str
    started_at: str
    authenticated_at: str | None  # None: they came from a provider that does not say it
    expires_at: str
    address: str | None
    user_agent: str | None


class ConsentView(BaseModel):
    """What a person has allowed a client."""

    client: str
    scopes: list[str]
    resources: list[str]


class DelegationView(BaseModel):
    """What a client may do for a person while they are away."""

    id: str
    client: str
    purpose: str
    scopes: list[str]
    resources: list[str]
    created_at: str
    expires_at: str
    used_at: str | None = Field(description="When the first token came of it")

    @classmethod
    def of(cls, delegation: Delegation) -> "DelegationView":
        """Show a delegation."""
        family, used_at = delegation.family, delegation.used_at
        return cls(
            id=delegation.id,
            client=family.client_id,
            purpose=delegation.purpose,
            scopes=sorted(family.scopes),
            resources=list(family.resources),
            created_at=to_datetime(family.created_at).isoformat(),
            expires_at=to_datetime(delegation.expires_at).isoformat(),
            used_at=None if used_at is None else to_datetime(used_at).isoformat(),
        )


@router.get("/users/{user}/sessions")
async def list_sessions(request: Request, user: Named) -> Page[SessionView]:
    """List where a user is signed in with a browser, newest first."""
    service = service_of(request)
    account = await find_user(service, user)
    found = await service.database.read(sessions.alive_of_user, account.id, service.clock.micros())
    items = [
        SessionView(
            id=session.id,
            started_at=to_datetime(session.started_at).isoformat(),
            authenticated_at=_moment(session.authenticated_at),
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
    await by.commit(account_changes.end_sessions, account.id)


@router.delete("/users/{user}/sessions/{session}", status_code=204)
async def end_session(request: Request, user: Named, session: Named, by: Administrator) -> None:
    """End one session and the tokens that came from it."""
    service = service_of(request)
    account = await find_user(service, user)
    await by.commit(account_changes.end_session, account.id, session)


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


@router.delete("/users/{user}/consents/{client:path}", status_code=204)  # it may be named by a URL
async def withdraw_consent(request: Request, user: Named, client: Named, by: Administrator) -> None:
    """Withdraw what a user has allowed a client, and end what came of it."""
    service = service_of(request)
    account = await find_user(service, user)
    if not await by.commit(connected_apps.withdraw, account.id, client):
        raise Problem(404, "consent-unknown", detail=f"the user has allowed {client!r} nothing")


@router.get("/users/{user}/delegations")
async def list_delegations(request: Request, user: Named) -> Page[DelegationView]:
    """List what clients may do for a user while they are away, newest first."""
    service = service_of(request)
    account = await find_user(service, user)
    found = await service.database.read(delegations.alive_of_user, account.id, service.clock.micros())
    return Page(items=[DelegationView.of(delegation) for delegation in found])


@router.delete("/users/{user}/delegations/{delegation}", status_code=204)
async def end_delegation(request: Request, user: Named, delegation: Named, by: Administrator) -> None:
    """End what a client may do for a user."""
    service = service_of(request)
    account = await find_user(service, user)
    why = "withdrawn by an administrator"
    await by.commit(delegations.withdraw, account.id, delegation, why)


def _moment(authenticated_at: int) -> str | None:
    return to_datetime(authenticated_at).isoformat() if authenticated_at != UNTOLD else None
