"""`/oauth2/userinfo`: the claims about the person behind an access token (OpenID Connect Core section 5.3)."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from auth_svc.endpoints.oauth_http import NO_STORE
from auth_svc.parameters import FORM, read_form
from auth_svc.people import accounts
from auth_svc.people.accounts import Account
from auth_svc.service import service_of
from lib_auth.access_token import TokenRejected
from lib_auth.credentials import Credentials, read_credentials
from lib_auth.guard import challenge, insufficient_scope


async def userinfo(request: Request) -> Response:
    """Answer with what the token's scopes allow to know."""
    service = service_of(request)
    shown, posted = read_credentials(request), await _posted(request)
    if shown is not None and posted is not None:
        # RFC 6750 sections 2 and 3.1: one way in each request.
        return _refuse(400, 'Bearer error="invalid_request", error_description="Send the access token in one way only"')
    credentials = shown or posted
    if credentials is None:
        return _refuse(401, challenge(None))
    try:
        principal = await service.verifier.verify(credentials.token)
        await service.sender.check(request, credentials, principal)
        account = _person(await service.database.look(accounts.find, principal.subject))
    except TokenRejected as error:
        return _refuse(401, challenge(error, scheme=credentials.scheme))
    if not principal.has_scope("openid"):
        return _refuse(403, insufficient_scope("openid"))
    return JSONResponse(service.issuer.userinfo(account, principal.scopes), headers=NO_STORE)


async def _posted(request: Request) -> Credentials | None:
    """RFC 6750 section 2.2: the token in a form."""
    if request.method != "POST" or not request.headers.get("content-type", "").startswith(FORM):
        return None
    token = dict(await read_form(request)).get("access_token")
    return Credentials("bearer", token) if token else None


def _person(account: Account | None) -> Account:
    if account is None:
        raise TokenRejected("claims", "the access token is not a person's")
    return account


def _refuse(status: int, told: str) -> Response:
    """RFC 6750 section 3: the answer is in the challenge."""
    return Response(status_code=status, headers=NO_STORE | {"www-authenticate": told})
