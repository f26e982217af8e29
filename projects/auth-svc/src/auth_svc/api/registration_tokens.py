"""`/v1/admin/registration-tokens`: who may register clients, how many, and with which scopes."""

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from auth_svc import opaque
from auth_svc.api.administrator import Administrator, Named, administrator, invalid
from auth_svc.api.views import WITHOUT_NUL, Body, Page
from auth_svc.clients import registration_tokens
from auth_svc.clients.metadata import OPEN_SCOPES
from auth_svc.clients.registration_tokens import RegistrationToken
from auth_svc.protocol.families import MICROS
from auth_svc.rights.resources import ALL_SCOPES
from auth_svc.service import service_of
from lib_events.clock import to_datetime
from lib_events.problem import Problem

router = APIRouter(prefix="/v1/admin", tags=["clients"], dependencies=[Depends(administrator)])


class RegistrationTokenBody(Body):
    """A token for whoever is to register clients."""

    note: str = Field(min_length=1, max_length=200, pattern=WITHOUT_NUL)
    uses: int = Field(default=1, ge=1, le=1_000)
    expires_in_seconds: int = Field(default=24 * 3_600, ge=60, le=365 * 24 * 3_600)
    scopes: list[str] = Field(default=sorted(OPEN_SCOPES), max_length=50)


class RegistrationTokenView(BaseModel):
    """A token as administrators see it."""

    id: str
    status: str
    note: str
    uses_left: int
    scopes: list[str]
    created_by: str
    created_at: str
    expires_at: str
    token: str | None = None  # only in the answer that made it

    @classmethod
    def of(cls, token: RegistrationToken, now: int, secret: str | None = None) -> "RegistrationTokenView":
        """Show a token."""
        return cls(
            id=token.id,
            status=token.status(now),
            note=token.note,
            uses_left=token.uses_left,
            scopes=sorted(token.scopes),
            created_by=token.created_by,
            created_at=to_datetime(token.created_at).isoformat(),
            expires_at=to_datetime(token.expires_at).isoformat(),
            token=secret,
        )


@router.get("/registration-tokens")
async def list_registration_tokens(request: Request) -> Page[RegistrationTokenView]:
    """List the tokens, newest first."""
    service = service_of(request)
    found = await service.database.read(registration_tokens.page)
    now = service.clock.micros()
    return Page(items=[RegistrationTokenView.of(token, now) for token in found])


@router.post("/registration-tokens", status_code=201)
async def issue_registration_token(body: RegistrationTokenBody, by: Administrator) -> RegistrationTokenView:
    """Make a token (RFC 7591's initial access token); it is in this answer and nowhere else."""
    if unknown := frozenset(body.scopes) - ALL_SCOPES:
        raise invalid("scopes", f"scopes must be known, got {', '.join(sorted(unknown))}")
    actor, secret = by.actor, opaque.new_secret()
    token = RegistrationToken(
        id=opaque.new_id(),
        scopes=frozenset(body.scopes),
        note=body.note,
        uses_left=body.uses,
        created_by=by.subject,
        created_at=actor.at,
        expires_at=actor.at + body.expires_in_seconds * MICROS,
    )
    await by.commit(registration_tokens.issue, token, secret)
    return RegistrationTokenView.of(token, actor.at, secret)


@router.delete("/registration-tokens/{token}", status_code=204)
async def revoke_registration_token(token: Named, by: Administrator) -> None:
    """Forget a token; clients registered with it stay."""
    if not await by.commit(registration_tokens.revoke, token):
        raise Problem(404, "registration-token-unknown", detail=f"there is no registration token {token!r}")
