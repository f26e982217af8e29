"""`/oauth2/token` and `/oauth2/device_authorization`: load the rows, decide, commit, answer."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from auth_svc.endpoints.oauth_http import REPEATABLE, limited, refusal, respond
from auth_svc.parameters import authorization_of, named_client, read_form
from auth_svc.protocol import effects, token_rows
from auth_svc.protocol.effects import (
    Effect,
    Raced,
    SaveDeviceCode,
    StartDelegation,
    TellIssued,
    UseAssertion,
    UseCode,
    UseDeviceCode,
    UseProof,
    UseRefreshToken,
    issued_event,
)
from auth_svc.protocol.protocol import Protocol
from auth_svc.protocol.request import Answer, ProtocolRequest
from auth_svc.rights.resources import TargetInvalid
from auth_svc.service import AuthService, act_as, address_of, service_of
from lib_auth.access_token import TokenRejected
from lib_auth.principal import Principal
from lib_events.http.limits import first_header, headers_of

SHORTEST_KEY = 22  # 128 bits by chance, as Base64
LOST_RACE = refusal("invalid_grant", "Another request used this first.")
LOSSES: Mapping[type, Answer] = {
    StartDelegation: refusal(
        "invalid_request", "The 'subject_token', or what the person allowed, was revoked meanwhile."
    ),
    UseCode: LOST_RACE,
    UseDeviceCode: LOST_RACE,
    # RFC 9449 section 5 and RFC 7523 section 3.2: each by its own name.
    UseProof: refusal("invalid_dpop_proof", "The DPoP proof was used before (jti): make one for each request."),
    UseAssertion: refusal("invalid_client", "Client authentication failed."),
    SaveDeviceCode: refusal("invalid_client", "Client authentication failed."),  # it has just been removed
}


async def token(request: Request) -> Response:
    """Exchange a grant for tokens (RFC 6749 section 3.2)."""
    service = service_of(request)
    pairs = await read_form(request, repeatable=REPEATABLE)
    wanted = ProtocolRequest(
        "POST",
        pairs,
        authorization_of(request),
        url=f"{service.issuer.url}/oauth2/token",
        proofs=headers_of(request.scope, b"dpop"),
        idempotency_key=_idempotency_key(request),
    )
    answer = await _answer(service, wanted)
    if answer is None:  # another tab used the same refresh token at the same moment: then its rows say what follows
        answer = await _answer(service, wanted, is_proven=True)
    response = respond(answer or LOST_RACE)
    if wanted.proofs:
        response.headers["dpop-nonce"] = service.issuer.nonces.current()  # RFC 9449 section 8.2
    return response


def _idempotency_key(request: Request) -> str:
    """What whoever asks is known by when they ask again; nothing where that could be guessed."""
    key = first_header(request.scope, b"idempotency-key")
    return key if len(key) >= SHORTEST_KEY else ""


async def _answer(service: AuthService, wanted: ProtocolRequest, *, is_proven: bool = False) -> Answer | None:
    """Load, decide, commit; None when another request came first with the same refresh token.

    `is_proven`: this request has been here before, and its proofs, which count once, were taken then.
    """
    protocol = await _load(service, wanted)
    answer = protocol.token(wanted)
    if is_proven:
        protocol.effects = [effect for effect in protocol.effects if not isinstance(effect, UseProof)]
    lost = await _commit(service, protocol, answer)
    return None if isinstance(lost, UseRefreshToken) else LOSSES.get(type(lost), answer)


async def device_authorization(request: Request) -> Response:
    """Begin a sign-in on another device (RFC 8628 section 3.1)."""
    service = service_of(request)
    pairs = await read_form(request, repeatable=REPEATABLE)
    with limited(request, service.limits.devices):  # anybody can be a public client, and each request keeps a row
        return await _begin_device(request, service, pairs)


async def _begin_device(request: Request, service: AuthService, pairs: Sequence[tuple[str, str]]) -> Response:
    wanted = ProtocolRequest("POST", pairs, authorization_of(request))
    protocol = await _load(service, wanted)
    protocol.address = address_of(request)
    try:
        protocol.resources = service.issuer.resources.choose([value for name, value in pairs if name == "resource"])
    except TargetInvalid as error:
        return respond(refusal("invalid_target", str(error)))
    answer = protocol.device_authorization(wanted)
    return respond(LOSSES.get(type(await _commit(service, protocol, answer)), answer))


async def _load(service: AuthService, wanted: ProtocolRequest) -> Protocol:
    now = service.clock.micros()  # before anything is read: what is taken from then on is refused in what comes of this
    client_id = named_client(wanted.authorization, wanted.form)
    subject = await _subject(service, wanted.form.get("subject_token"))
    rows = await service.database.look(token_rows.load, client_id, wanted.form, subject, service.issuer)
    if (keys := await service.client_keys.of(rows.client, wanted.form.get("client_assertion"))) is not None:
        rows = replace(rows, client_keys=keys)
    # Another process may have taken something from a role, and not been heard yet.
    if rows.roles_refused_at > service.issuer.roles.last_refused:
        await service.definitions.catch_up(rows.roles_refused_at)
    return Protocol(service.issuer, rows, now)


async def _subject(service: AuthService, token: str | None) -> Principal | None:
    """Whom the token that is to be exchanged stands for, if it is worth anything (RFC 8693)."""
    try:
        return await service.verifier.verify(token) if token is not None else None
    except TokenRejected:
        return None


async def _commit(service: AuthService, protocol: Protocol, answer: Answer) -> Raced | None:
    """Make the decision true, or say what it lost to; a refusal keeps only its penalties."""
    wanted = protocol.effects if answer.status < 400 else protocol.penalties()
    if answer.status < 400 and protocol.rows.client is not None:
        act_as(protocol.rows.account.id if protocol.rows.account else protocol.rows.client.id)
    return await commit(service, wanted, service.clock.micros())  # the grace of a token begins when it was used


async def commit(service: AuthService, wanted: Sequence[Effect], now: int) -> Raced | None:
    """Commit `wanted`; events alone join the group commit as rows, which costs no transaction of their own."""
    if not wanted:
        return None
    if all(isinstance(effect, TellIssued) for effect in wanted):
        source = service.database.source
        events = [issued_event(source, effect.data) for effect in wanted if isinstance(effect, TellIssued)]
        await service.database.write(events=events)
        return None
    return await service.database.transact(effects.commit, wanted, now)
