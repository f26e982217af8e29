"""`/oauth2/introspect` and `/oauth2/revoke`: what a token is worth, and the end of it."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from auth_svc.clients.client import Client
from auth_svc.endpoints.oauth_http import ClientRequest, ProtocolRefused, read_client_request, refusal, respond
from auth_svc.endpoints.token import commit
from auth_svc.grants.token_exchange import acting
from auth_svc.people import accounts, delegations
from auth_svc.people.accounts import Account
from auth_svc.protocol import families, token_rows
from auth_svc.protocol.effects import Effect, KillFamily, RevokeToken
from auth_svc.protocol.families import MICROS, Family
from auth_svc.protocol.request import Answer
from auth_svc.protocol.token_rows import RefreshToken
from auth_svc.proving.assurance import claims_of
from auth_svc.service import AuthService
from lib_auth.access_token import TokenRejected
from lib_auth.principal import Principal
from lib_events.clock import to_micros

INACTIVE: Answer = Answer(200, {"active": False})


async def introspect(request: Request) -> Response:
    """Tell a resource server about a token meant for it, or a client about its own (RFC 7662)."""
    asked = await read_client_request(request)
    if asked.client.is_public:
        # RFC 7662 section 2.1: whoever asks must be authorised, and anybody can be a public client.
        raise ProtocolRefused(refusal("unauthorized_client", "Introspection is for clients with a secret."))
    token = _token(asked)
    try:
        principal = await asked.service.verifier.verify(token)
    except TokenRejected:
        return respond(await _introspect_refresh_token(asked, token))
    if not _may_see(asked.client, principal):
        return respond(INACTIVE)
    family = await asked.service.database.read(families.find, principal.family_id) if principal.family_id else None
    return respond(Answer(200, _describe(asked.service, principal, family)))


async def revoke(request: Request) -> Response:
    """End a token of the client's own; tokens that mean nothing are as good as revoked (RFC 7009 section 2.2)."""
    asked = await read_client_request(request)
    service, now = asked.service, asked.service.clock.micros()
    token = _token(asked)
    if (row := await service.database.read(token_rows.find_refresh_token, token)) is not None:
        _check_owner(asked.client, row.family.client_id)
        await commit(service, [KillFamily(row.family.id, "revoked by the client")], now)
        return respond(Answer(200))
    if (delegation := await service.database.read(delegations.find, token)) is not None:
        _check_owner(asked.client, delegation.family.client_id)
        await commit(service, [KillFamily(delegation.family.id, "no longer needed")], now)
        return respond(Answer(200))
    try:
        principal = await service.verifier.verify(token)
    except TokenRejected:
        return respond(Answer(200))
    _check_owner(asked.client, principal.client_id)
    wanted: list[Effect] = [RevokeToken(principal.token_id, to_micros(principal.expires_at) // MICROS)]
    await commit(service, wanted, now)
    return respond(Answer(200))


def _token(asked: ClientRequest) -> str:
    token = asked.form.get("token")
    if not token:
        raise ProtocolRefused(refusal("invalid_request", "Missing 'token' in request."))
    return token


def _check_owner(client: Client, owner: str) -> None:
    if owner != client.id:
        # RFC 7009 section 2.1: the request is refused when the token was issued to somebody else.
        raise ProtocolRefused(refusal("invalid_grant", "The token was issued to another client."))


def _may_see(client: Client, principal: Principal) -> bool:
    return principal.client_id == client.id or (client.resource is not None and client.resource == principal.audience)


def _describe(service: AuthService, principal: Principal, family: Family | None) -> dict[str, Any]:
    members = {
        "active": True,
        "iss": service.issuer.url,
        "sub": principal.subject,
        "aud": principal.audience,
        "client_id": principal.client_id,
        "scope": " ".join(sorted(principal.scopes)),
        "roles": sorted(principal.roles),
        "permissions": service.issuer.permissions(principal.roles, principal.audience) or None,
        "username": principal.username,
        "jti": principal.token_id,
        "sid": principal.session_id,
        "iat": to_micros(principal.issued_at) // MICROS,
        "exp": to_micros(principal.expires_at) // MICROS,
        "token_type": "Bearer" if principal.key_thumbprint is None else "DPoP",
        "cnf": None if principal.key_thumbprint is None else {"jkt": principal.key_thumbprint},
        "act": acting(principal.actors),
    }
    if family is not None:  # RFC 9470 section 6.2
        members |= claims_of(family.authenticated_at, family.methods)
    return {name: value for name, value in members.items() if value is not None}


async def _introspect_refresh_token(asked: ClientRequest, token: str) -> Answer:
    row, account = await asked.service.database.read(_load_refresh_token, token)
    now = asked.service.clock.micros()
    alive = (
        row is not None
        and row.family.client_id == asked.client.id
        and row.used_at is None
        and now < row.expires_at
        and row.family.revoked_at is None
        and not row.is_kept_from(asked.client)
        and account is not None
        and account.enabled
    )
    if not alive or row is None or account is None:
        return INACTIVE
    members = {"sub": account.id, "client_id": row.family.client_id, "scope": row.family.scope}
    return Answer(200, members | {"active": True, "exp": row.expires_at // MICROS, "username": account.username})


def _load_refresh_token(connection: Any, token: str) -> tuple[RefreshToken | None, Account | None]:
    row = token_rows.find_refresh_token(connection, token)
    return row, accounts.find(connection, row.family.user_id) if row else None
