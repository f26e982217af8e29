"""`/oauth2/token` and `/oauth2/device_authorization`: load the rows, decide, commit, answer."""

from collections.abc import Mapping, Sequence

from starlette.requests import Request
from starlette.responses import Response

from auth_svc import effects, token_rows
from auth_svc.effects import Effect, TellIssued, issued_event
from auth_svc.endpoints.oauth_http import REPEATABLE, refusal, respond
from auth_svc.parameters import named_client, read_form
from auth_svc.protocol import Protocol
from auth_svc.protocol_request import Answer, ProtocolRequest
from auth_svc.rate_limits import TooManyAttempts, network_of
from auth_svc.resources import TargetInvalid
from auth_svc.service import AuthService, act_as, address_of, service_of

LOST_RACE = refusal("invalid_grant", "Another request used this first.")


async def token(request: Request) -> Response:
    """Exchange a grant for tokens (RFC 6749 section 3.2)."""
    service = service_of(request)
    pairs = await read_form(request, repeatable=REPEATABLE)
    protocol = await _load(service, request, dict(pairs))
    answer = protocol.token(ProtocolRequest("POST", pairs, request.headers))
    return respond(await _commit(service, protocol, answer))


async def device_authorization(request: Request) -> Response:
    """Begin a sign-in on another device (RFC 8628 section 3.1)."""
    service = service_of(request)
    pairs = await read_form(request, repeatable=REPEATABLE)
    try:
        # Anybody can be a public client, and each request keeps a row for ten minutes.
        service.device_limits.begin(network_of(address_of(request)))
    except TooManyAttempts as error:
        refused = respond(refusal("temporarily_unavailable", "Too many devices at once.", status=429))
        refused.headers["retry-after"] = str(error.retry_after)
        return refused
    protocol = await _load(service, request, dict(pairs))
    try:
        protocol.resources = service.issuer.resources.choose([value for name, value in pairs if name == "resource"])
    except TargetInvalid as error:
        return respond(refusal("invalid_target", str(error)))
    answer = protocol.device_authorization(ProtocolRequest("POST", pairs, request.headers))
    return respond(await _commit(service, protocol, answer))


async def _load(service: AuthService, request: Request, form: Mapping[str, str]) -> Protocol:
    client_id = named_client(request.headers, form)
    rows = await service.database.read(token_rows.load, client_id, form, service.issuer.is_loopback)
    return Protocol(service.issuer, rows, service.clock.micros())


async def _commit(service: AuthService, protocol: Protocol, answer: Answer) -> Answer:
    """Make the decision true, then let it out; a refusal keeps only its penalties."""
    wanted = protocol.effects if answer.status < 400 else protocol.penalties()
    if answer.status < 400 and protocol.rows.client is not None:
        act_as(protocol.rows.account.id if protocol.rows.account else protocol.rows.client.id)
    if not await commit(service, wanted, protocol.now):
        return LOST_RACE
    return answer


async def commit(service: AuthService, wanted: Sequence[Effect], now: int) -> bool:
    """Commit `wanted`; events alone join the group commit as rows, which costs no transaction of their own."""
    if not wanted:
        return True
    if all(isinstance(effect, TellIssued) for effect in wanted):
        source = service.database.source
        events = [issued_event(source, effect.data) for effect in wanted if isinstance(effect, TellIssued)]
        await service.database.write(events=events)
        return True
    return await service.database.transact(effects.commit, wanted, now)
