"""`/oauth2/logout`: RP-initiated logout, with a question wherever the request proves nothing."""

from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from auth_svc.clients.client import Client
from auth_svc.pages.notices import sign_out_page, signed_out_page
from auth_svc.protocol.authorization_request import add_to
from auth_svc.protocol.id_token_hint import read_id_token_hint
from auth_svc.protocol.token_rows import usable_client
from auth_svc.service import AuthService, service_of
from auth_svc.site.account import end_and_record
from auth_svc.site.browser import (
    CSRF_FIELD,
    PageRefused,
    Visitor,
    read_once,
    read_page_form,
    redirect,
    render,
    sign_out_browser,
    visitor_of,
)


@dataclass(frozen=True, slots=True)
class _Logout:
    """A logout request that was understood."""

    subject: str | None = None  # whom the hint names
    session: str | None = None  # and in which session of theirs, where it says so
    redirect_uri: str | None = None

    def names(self, visitor: Visitor) -> bool:
        """Whether the hint is of the visitor's own session: one of another may be old, and in anybody's hands."""
        if visitor.account is None or visitor.session is None or self.subject != visitor.account.id:
            return False
        return self.session in (None, visitor.session.id)


async def logout(request: Request) -> Response:
    """Sign the browser out and send it on, if the client may say where (RP-Initiated Logout 1.0)."""
    service, visitor = service_of(request), await visitor_of(request)
    query, confirmed = request.url.query, False
    if request.method == "POST":
        form = read_once(await request.body())
        if CSRF_FIELD not in form:
            return redirect(f"/oauth2/logout?{urlencode(form)}")  # a client's own form: begin like everybody else
        query, confirmed = (await read_page_form(request, visitor)).get("request", ""), True
    wanted = await _understand(service, read_once(query))
    if visitor.account is not None and not confirmed and not wanted.names(visitor):
        # Section 6: without a hint that names this person, anybody's link could sign them out.
        page = sign_out_page(csrf=visitor.csrf, query=query, username=visitor.account.username)
        targets = (wanted.redirect_uri,) if wanted.redirect_uri else ()
        return render(request, page, visitor=visitor, form_targets=targets)
    return await _sign_out(request, visitor, wanted)


async def _sign_out(request: Request, visitor: Visitor, wanted: _Logout) -> Response:
    service = service_of(request)
    if visitor.account is not None and visitor.session is not None:
        actor = service.actor(request, visitor.account.id)
        await service.database.transact(end_and_record, visitor.session.id, actor)
    response = redirect(wanted.redirect_uri) if wanted.redirect_uri else render(request, signed_out_page())
    sign_out_browser(response, service.issuer)
    return response


async def _understand(service: AuthService, form: dict[str, str]) -> _Logout:
    """Check the hint and the way on; raises `PageRefused` for a request that contradicts itself."""
    claims = None
    if "id_token_hint" in form:
        claims = read_id_token_hint(service.issuer, form["id_token_hint"])
        if claims is None:
            raise PageRefused(400, "That request is not right", "Its id_token_hint does not come from here.")
    client_id = form.get("client_id") or (claims or {}).get("aud")
    if claims is not None and client_id != claims.get("aud"):
        # Section 2: when both are present they must agree.
        raise PageRefused(400, "That request is not right", "Its client_id and id_token_hint do not fit together.")
    client = await service.database.read(usable_client, client_id, service.issuer)
    return _Logout((claims or {}).get("sub"), (claims or {}).get("sid"), _way_on(client, form))


def _way_on(client: Client | None, form: dict[str, str]) -> str | None:
    """Section 3: only exactly what the client has registered."""
    uri = form.get("post_logout_redirect_uri")
    if uri is None or client is None or uri not in client.post_logout_redirect_uris:
        return None
    if "state" not in form:
        return uri
    return add_to(uri, {"state": form["state"]})
