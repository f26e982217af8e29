"""`/v1/access-requests`: a person asks for a role and sees what became of it."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from auth_svc.api.views import WITHOUT_NUL, Body
from auth_svc.people import access_requests
from auth_svc.people.access_requests import AccessRequest, AccessRequestRejected
from auth_svc.service import service_of
from lib_auth.principal import MEMBER, Principal
from lib_events.clock import to_datetime
from lib_events.problem import Problem


class AccessRequestBody(Body):
    """Which role, and why."""

    role: str = Field(min_length=1, max_length=40)
    reason: str = Field(min_length=1, max_length=1000, pattern=WITHOUT_NUL)


class AccessRequestView(BaseModel):
    """A request as its asker sees it."""

    id: str
    role: str
    reason: str
    status: str
    created_at: str
    decided_at: str | None
    why: str | None

    @classmethod
    def of(cls, row: AccessRequest) -> "AccessRequestView":
        """Show a row; the nonce stays here."""
        return cls(
            id=row.id,
            role=row.role,
            reason=row.reason,
            status=row.status,
            created_at=to_datetime(row.created_at).isoformat(),
            decided_at=to_datetime(row.decided_at).isoformat() if row.decided_at else None,
            why=row.why,
        )


class AccessRequestList(BaseModel):
    """One page; there are never many."""

    items: list[AccessRequestView]
    next_cursor: str | None = None


def asker(scope: str) -> Callable[[Request], Awaitable[Principal]]:
    """Let in every member, by a client that may act for them in the AppService."""

    async def check(request: Request) -> Principal:
        guard = service_of(request).app_guard
        principal = await guard.authenticate(request)
        guard.authorise(principal, scope=scope, role=MEMBER)
        return principal

    return check


# Asking starts a workflow there; looking at what one has asked for is looking at that.
Asker = Annotated[Principal, Depends(asker("workflows:run"))]
Reader = Annotated[Principal, Depends(asker("workflows:read"))]
router = APIRouter(prefix="/v1/access-requests", tags=["access requests"])


@router.post("", status_code=201)
async def ask(request: Request, body: AccessRequestBody, principal: Asker) -> AccessRequestView:
    """Ask for a role; an administrator decides."""
    service = service_of(request)
    actor = service.actor(request, principal.subject)
    try:
        row = await service.database.transact(access_requests.ask, principal.subject, body.role, body.reason, actor)
    except AccessRequestRejected as error:
        raise Problem(error.status, "access-request-rejected", detail=error.detail) from error
    return AccessRequestView.of(row)


@router.get("")
async def own(request: Request, principal: Reader) -> AccessRequestList:
    """Show one's own requests, newest first."""
    rows = await service_of(request).database.read(access_requests.of_user, principal.subject)
    return AccessRequestList(items=[AccessRequestView.of(row) for row in rows])
