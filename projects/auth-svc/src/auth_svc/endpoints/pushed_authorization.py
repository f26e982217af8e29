"""`/oauth2/par`: a client says what it wants before it sends the browser, and proves that it is the one (RFC 9126)."""

from contextlib import nullcontext

from authlib.oauth2.rfc6749 import OAuth2Error
from starlette.requests import Request
from starlette.responses import Response

from auth_svc.clients import clients
from auth_svc.clients.client import Client
from auth_svc.clients.documents import DocumentRejected
from auth_svc.endpoints.oauth_http import REPEATABLE, ProtocolRefused, authenticate, limited, refusal, respond
from auth_svc.parameters import authorization_of, read_form
from auth_svc.protocol import authorization, effects, pushed_requests
from auth_svc.protocol.authorization_request import AuthorizationRows
from auth_svc.protocol.effects import Effect
from auth_svc.protocol.protocol import Protocol
from auth_svc.protocol.pushed_requests import UNTIL_BEGUN_SECONDS, Pairs
from auth_svc.protocol.request import Answer, ProtocolRequest
from auth_svc.protocol.token_rows import TokenRows
from auth_svc.rate_limits import network_of
from auth_svc.service import AuthService, address_of, service_of
from lib_events.database import Connection

AUTHENTICATION = frozenset(("client_secret", "client_assertion", "client_assertion_type"))


async def push(request: Request) -> Response:
    """Keep a valid authorization request for its client."""
    service = service_of(request)
    pairs = await read_form(request, repeatable=REPEATABLE)
    url = f"{service.issuer.url}/oauth2/par"
    wanted = ProtocolRequest("POST", pairs, authorization_of(request), url=url, proofs=request.headers.getlist("dpop"))
    try:
        await service.client_documents.ensure(wanted.form.get("client_id"), network_of(address_of(request)))
    except DocumentRejected as error:
        raise ProtocolRefused(refusal("invalid_client", f"{error}.")) from error
    protocol = Protocol(service.issuer, TokenRows(), service.clock.micros())
    try:
        # First: who has to come again with a nonce may bring the same assertion, which counts once.
        protocol.take_proof(wanted)
    except OAuth2Error as error:
        answer = protocol.handle_error_response(wanted, error)
    else:
        client = await authenticate(service, wanted)
        with limited(request, service.limits.pushes) if client.is_public else nullcontext():
            answer = await _push(service, wanted, client, protocol)
    response = respond(answer)
    if wanted.proofs:
        response.headers["dpop-nonce"] = service.issuer.nonces.current()
    return response


async def _push(service: AuthService, wanted: ProtocolRequest, client: Client, protocol: Protocol) -> Answer:
    if "request_uri" in wanted.form:
        return refusal("invalid_request", "A pushed request cannot refer to another one.")  # section 2.1
    pairs = [(name, value) for name, value in wanted.payload.pairs if name not in AUTHENTICATION | {"client_id"}]
    pairs.append(("client_id", client.id))
    if protocol.proof is not None:
        if wanted.form.get("dpop_jkt", protocol.proof.thumbprint) != protocol.proof.thumbprint:
            return refusal("invalid_dpop_proof", "The proof's key must be the one named by dpop_jkt.")
        pairs = [*(pair for pair in pairs if pair[0] != "dpop_jkt"), ("dpop_jkt", protocol.proof.thumbprint)]
    refused = authorization.validate(service.issuer, pairs, AuthorizationRows(client=client))
    if refused is not None:
        return refusal(refused.error, refused.description)
    request_uri = await service.database.transact(_keep, client, pairs, protocol.effects, protocol.now)
    if request_uri is None:
        raise ProtocolRefused(refusal("invalid_dpop_proof", "The DPoP proof was used before (jti)."))
    return Answer(201, {"request_uri": request_uri, "expires_in": UNTIL_BEGUN_SECONDS})


def _keep(connection: Connection, client: Client, pairs: Pairs, wanted: list[Effect], now: int) -> str | None:
    if not clients.stays(connection, client.id):
        raise ProtocolRefused(refusal("invalid_client", "Client authentication failed."))
    if effects.commit(connection, wanted, now) is not None:
        return None
    return pushed_requests.keep(connection, client.id, pairs, now)
