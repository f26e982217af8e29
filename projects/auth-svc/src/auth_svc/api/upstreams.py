"""`/v1/admin/upstreams`: other OpenID providers whose people may sign in here."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from auth_svc.api.administrator import Administrator, Named, administrator, invalid
from auth_svc.api.views import WITHOUT_NUL, Body, Page, Secret
from auth_svc.service import AuthService, service_of
from auth_svc.site.upstream import callback_of
from auth_svc.upstreams import providers, removal
from auth_svc.upstreams.providers import Upstream, UpstreamRejected
from lib_events.problem import Problem

router = APIRouter(prefix="/v1/admin", tags=["upstreams"], dependencies=[Depends(administrator)])

ID = r"^[a-z0-9][a-z0-9-]{0,39}$"
DOMAIN = r"^[a-z0-9][a-z0-9.-]{0,252}$"


class UpstreamBody(Body):
    """A provider, as it registered this service as its client."""

    id: str = Field(pattern=ID)  # part of the redirect URI
    name: str = Field(min_length=1, max_length=60, pattern=WITHOUT_NUL)
    issuer: str = Field(max_length=500, pattern=r"^https?://[!-~]+$")
    client_id: str = Field(min_length=1, max_length=200, pattern=r"^[ -~]+$")
    client_secret: Annotated[Secret, Field(min_length=1, max_length=500)]
    scopes: str = Field(default="openid profile email", max_length=300, pattern=r"^[!-~]+( [!-~]+)*$")
    makes_accounts: bool = False
    domains: list[Annotated[str, Field(pattern=DOMAIN)]] = Field(default=[], max_length=50)


class UpstreamView(BaseModel):
    """A provider as administrators see it; its secret is never shown."""

    id: str
    name: str
    issuer: str
    client_id: str
    redirect_uri: str
    scopes: str
    makes_accounts: bool
    domains: list[str]

    @classmethod
    def of(cls, service: AuthService, upstream: Upstream) -> "UpstreamView":
        """Show an upstream."""
        return cls(
            id=upstream.id,
            name=upstream.name,
            issuer=upstream.issuer,
            client_id=upstream.client_id,
            redirect_uri=callback_of(service, upstream.id),
            scopes=upstream.scopes,
            makes_accounts=upstream.makes_accounts,
            domains=list(upstream.domains),
        )


@router.get("/upstreams")
async def list_upstreams(request: Request) -> Page[UpstreamView]:
    """List the providers by name."""
    service = service_of(request)
    found = await service.database.read(providers.every)
    return Page(items=[UpstreamView.of(service, upstream) for upstream in found])


@router.post("/upstreams", status_code=201)
async def create_upstream(request: Request, body: UpstreamBody, by: Administrator) -> UpstreamView:
    """Let another provider's people sign in."""
    service = service_of(request)
    actor = by.actor
    try:
        upstream = Upstream(
            id=body.id,
            name=body.name,
            issuer=providers.check(body.issuer, body.scopes, is_loopback_here=service.issuer.is_loopback),
            client_id=body.client_id,
            sealed=b"",
            scopes=body.scopes,
            makes_accounts=body.makes_accounts,
            domains=tuple(body.domains),
            created_at=actor.at,
        )
        sealed = service.sealing_key.seal(body.client_secret.get_secret_value(), purpose=upstream.purpose)
        made = await by.commit(providers.register, upstream.with_secret(sealed))
    except UpstreamRejected as error:
        raise invalid(error.field, error.detail) from error
    return UpstreamView.of(service, made)


@router.delete("/upstreams/{upstream}", status_code=204)
async def remove_upstream(
    request: Request, upstream: Named, by: Administrator, *, keep_sessions: bool = False
) -> Response:
    """Let nobody sign in by way of a provider any more, and end what it began, unless `keep_sessions`.

    Those are the browser sessions, tokens and delegations of whoever came by way of it.
    """
    known = await service_of(request).database.read(providers.find, upstream)
    person: str | None = ""
    while known is not None and not keep_sessions and person is not None:
        person = await by.commit(removal.end_next, known, person)
    if known is None or not await by.commit(removal.remove, known, keep_sessions):
        raise Problem(404, "upstream-unknown", detail=f"there is no upstream {upstream!r}")
    return Response(status_code=204)
