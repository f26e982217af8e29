"""`/v1/admin/invitations`: who may make themselves an account."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request
from pydantic import BaseModel, Field

from auth_svc import opaque
from auth_svc.api.administrator import PAGE, Administrator, Cursor, Limit, Named, administrator, invalid
from auth_svc.api.views import Body, Page
from auth_svc.audit import Actor
from auth_svc.people import invitations
from auth_svc.people.accounts import AccountRejected
from auth_svc.people.invitations import LIFETIME_SECONDS, Invitation, Wanted
from auth_svc.rights import roles
from auth_svc.service import service_of
from lib_events.clock import to_datetime
from lib_events.database import Connection
from lib_events.problem import Problem

MONTH_SECONDS = 30 * 24 * 3600
IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=255)]

router = APIRouter(prefix="/v1/admin", tags=["invitations"], dependencies=[Depends(administrator)])


class InvitationBody(Body):
    """Whom to invite; with an e-mail address the link is sent there."""

    email: str | None = Field(default=None, max_length=254)
    roles: list[str] = Field(default=[], max_length=20)
    expires_seconds: int = Field(default=LIFETIME_SECONDS, ge=60, le=MONTH_SECONDS)


class InvitationView(BaseModel):
    """An invitation as administrators see it."""

    id: str
    status: str
    email: str | None
    roles: list[str]
    created_by: str
    created_at: str
    expires_at: str
    used_by: str | None
    link: str | None = None  # only in the answer that made it

    @classmethod
    def of(cls, invitation: Invitation, now: int, **told: Any) -> "InvitationView":
        """Show an invitation."""
        return cls(
            id=invitation.id,
            status=invitation.status(now),
            email=invitation.email,
            roles=sorted(invitation.roles),
            created_by=invitation.created_by,
            created_at=to_datetime(invitation.created_at).isoformat(),
            expires_at=to_datetime(invitation.expires_at).isoformat(),
            used_by=invitation.used_by,
            **told,
        )


@router.post("/invitations", status_code=201)
async def invite(
    request: Request, body: InvitationBody, by: Administrator, *, idempotency_key: IdempotencyKey = None
) -> InvitationView:
    """Invite somebody; the link is in this answer, in the mail, and nowhere else.

    With the same `Idempotency-Key` it is one invitation and one mail however often it is sent, told each time.
    """
    service = service_of(request)
    if service.settings.registration == "off":
        raise Problem(409, "registration-off", detail="nobody may register; set EVS_REGISTRATION to invited or open")
    secret = opaque.new_secret()
    if idempotency_key is not None:
        secret = service.sealing_key.derive(f"{by.subject}\0{idempotency_key}", purpose="invitation")
    wanted = Wanted(body.email, frozenset(body.roles), body.expires_seconds, secret)
    try:
        made = await by.commit(_invite, wanted)
    except AccountRejected as error:
        raise invalid(error.field, error.detail) from error
    return InvitationView.of(made, service.clock.micros(), link=f"{service.issuer.url}/register?invitation={secret}")


def _invite(connection: Connection, wanted: Wanted, actor: Actor) -> Invitation:
    made = invitations.invite(connection, wanted, actor)
    roles.check_known(connection, wanted.roles)
    return made


@router.get("/invitations")
async def list_invitations(request: Request, cursor: Cursor = None, limit: Limit = PAGE) -> Page[InvitationView]:
    """List invitations, whatever became of them."""
    service = service_of(request)
    found = await service.database.read(invitations.page, cursor, limit)
    now, more = service.clock.micros(), found[-1].id if len(found) == limit else None
    return Page(items=[InvitationView.of(invitation, now) for invitation in found], next_cursor=more)


@router.post("/invitations/{invitation}/revoke")
async def revoke(request: Request, invitation: Named, by: Administrator) -> InvitationView:
    """Withdraw an invitation; one that was used stays as it is."""
    found = await by.commit(invitations.revoke, invitation)
    if found is None:
        raise Problem(404, "invitation-unknown", detail=f"there is no invitation {invitation!r}")
    return InvitationView.of(found, service_of(request).clock.micros())
