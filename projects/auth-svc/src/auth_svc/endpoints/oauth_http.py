"""Answers of the protocol endpoints, and the client authentication they share."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from authlib.oauth2.rfc6749 import InvalidClientError, OAuth2Error
from pydantic_core import to_json
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from auth_svc.clients.client import ANY_CLIENT, Client
from auth_svc.parameters import ParametersRejected, authorization_of, named_client, read_form
from auth_svc.protocol import effects, token_rows
from auth_svc.protocol.effects import Effect
from auth_svc.protocol.protocol import Protocol
from auth_svc.protocol.request import BASIC_CHALLENGE, Answer, ProtocolRequest
from auth_svc.protocol.token_rows import TokenRows
from auth_svc.rate_limits import Attempts, TooManyAttempts, network_of
from auth_svc.service import AuthService, act_as, address_of, service_of

# RFC 6749 section 5.1: answers with tokens, and errors of such requests, are never stored.
NO_STORE = {"cache-control": "no-store", "pragma": "no-cache"}
HEADERS = Headers(NO_STORE | {"content-type": "application/json"}).raw
KEPT_HEADERS = frozenset(("www-authenticate", "retry-after"))
NOT_IN_WORDS = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")
REPEATABLE = frozenset(("resource",))


class ProtocolRefused(Exception):
    """A protocol endpoint refuses; `answer` is what RFC 6749 section 5.2 says."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.body.get("error"))
        self.answer = answer


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """A request of a client that has proven who it is."""

    service: AuthService
    client: Client
    form: Mapping[str, str] = field(repr=False)


def respond(answer: Answer) -> Response:
    """Encode a protocol answer."""
    response = Response(to_json(answer.body), answer.status)
    response.raw_headers += HEADERS
    for name in answer.headers.keys() & KEPT_HEADERS:
        response.headers[name] = answer.headers[name]
    return response


def refusal(error: str, description: str, *, status: int = 400) -> Answer:
    """An error answer (RFC 6749 section 5.2)."""
    headers = {"www-authenticate": BASIC_CHALLENGE} if status == 401 else {}
    return Answer(status, {"error": error, "error_description": in_words(description)}, headers)


def in_words(description: str) -> str:
    """RFC 6749 section 5.2: printable ASCII without quotes and backslashes; what was sent may have had any."""
    return NOT_IN_WORDS.sub("?", description)


def unreadable(error: ParametersRejected) -> Answer:
    """The answer to a request that cannot be read."""
    code = "invalid_client" if error.status == 401 else "invalid_request"
    return refusal(code, error.description, status=error.status)


async def protocol_refused(_request: Request, error: Exception) -> Response:
    """Exception handler for what endpoints raise."""
    if isinstance(error, ParametersRejected):
        return respond(unreadable(error))
    assert isinstance(error, ProtocolRefused)  # noqa: S101 - registered for these two
    return respond(error.answer)


async def read_client_request(request: Request) -> ClientRequest:
    """Return the form of an authenticated client; raises `ProtocolRefused` or `ParametersRejected`."""
    service = service_of(request)
    pairs = await read_form(request)
    form = dict(pairs)
    client = await authenticate(service, ProtocolRequest("POST", pairs, authorization_of(request)))
    act_as(client.id)
    return ClientRequest(service, client, form)


@contextmanager
def limited(request: Request, limits: Attempts) -> Iterator[None]:
    """Count what anybody can ask for and that leaves a row, unless it cannot be kept; raises `ProtocolRefused` 429."""
    network = network_of(address_of(request))
    try:
        limits.begin(network)
    except TooManyAttempts as error:
        refused = refusal("temporarily_unavailable", "Too many requests at once; try again later.", status=429)
        raise ProtocolRefused(replace(refused, headers={"retry-after": str(error.retry_after)})) from error
    with limits.unless_away(network):
        yield


async def authenticate(service: AuthService, protocol_request: ProtocolRequest) -> Client:
    """Return the client that proves who it is; raises `ProtocolRefused`."""
    client_id = named_client(protocol_request.authorization, protocol_request.form)
    loaded = await service.database.look(token_rows.usable_client, client_id, service.issuer)
    keys = await service.client_keys.of(loaded, protocol_request.form.get("client_assertion"))
    rows = TokenRows(client=loaded, client_keys=keys)
    protocol = Protocol(service.issuer, rows, service.clock.micros())
    try:
        client: Client = protocol.authenticate_client(protocol_request, ANY_CLIENT)
        wanted: Sequence[Effect] = protocol.effects
        if wanted and await service.database.transact(effects.commit, wanted, protocol.now) is not None:
            raise InvalidClientError  # the assertion was used before
    except OAuth2Error as error:
        raise ProtocolRefused(protocol.handle_error_response(protocol_request, error)) from error
    return client
