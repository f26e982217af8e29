"""`/oauth2/userinfo`: the claims about the person behind an access token (OpenID Connect Core section 5.3)."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from auth_svc import accounts
from auth_svc.endpoints.oauth_http import NO_STORE
from auth_svc.parameters import read_form
from auth_svc.service import service_of
from lib_auth.access_token import TokenRejected
from lib_auth.guard import bearer_token


async def userinfo(request: Request) -> Response:
    """Answer with what the token's scopes allow to know."""
    service = service_of(request)
    token = bearer_token(request)
    if token is None and request.method == "POST" and request.headers.get("content-type"):
        token = dict(await read_form(request)).get("access_token")  # RFC 6750 section 2.2
    if token is None:
        return _refuse(401, None)
    try:
        principal = await service.verifier.verify(token)
    except TokenRejected as error:
        return _refuse(401, "invalid_token", error.detail)
    if not principal.has_scope("openid"):
        return _refuse(403, "insufficient_scope", "The scope openid is needed.", scope="openid")
    account = await service.database.read(accounts.find, principal.subject)
    if account is None:
        return _refuse(401, "invalid_token", "The token is not a person's.")
    return JSONResponse(service.issuer.userinfo(account, principal.scopes), headers=NO_STORE)


def _refuse(status: int, error: str | None, description: str = "", **parameters: str) -> Response:
    """RFC 6750 section 3: a request without a token gets a challenge without an error."""
    named: dict[str, Any] = {"error": error, "error_description": description, **parameters} if error else {}
    challenge = ", ".join(f'{name}="{value}"' for name, value in named.items())
    headers = NO_STORE | {"www-authenticate": f"Bearer {challenge}".strip()}
    return JSONResponse({name: value for name, value in named.items() if value}, status, headers=headers)
