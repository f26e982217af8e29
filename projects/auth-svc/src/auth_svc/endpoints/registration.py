"""`/oauth2/register`: clients register themselves, where the policy lets them, and manage it (RFC 7591, RFC 7592)."""

from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from auth_svc import opaque
from auth_svc.audit import Actor
from auth_svc.clients import clients, registration_tokens
from auth_svc.clients.client import BY_SECRET, CREDENTIALS, Client
from auth_svc.clients.clients import ClientUnknown
from auth_svc.clients.metadata import (
    OPEN_GRANTS,
    ClientMetadata,
    MetadataRejected,
    Policy,
    describe,
    read_metadata,
    to_client,
)
from auth_svc.endpoints.oauth_http import NO_STORE, ProtocolRefused, in_words, limited, refusal
from auth_svc.protocol.request import Answer
from auth_svc.service import AuthService, act_as, service_of
from lib_auth.credentials import read_credentials
from lib_events.database import Connection

NOT_ITS_OWN: Final = "The registration access token is not this client's."
# RFC 7592 section 2.2: what the server has issued is not the client's to send.
ISSUED = ("registration_access_token", "registration_client_uri", "client_secret_expires_at", "client_id_issued_at")

# Whatever the client says: the last ones an administrator may have set.
KEPT = ("registration_digest", "origin", "created_at", "fetched_at", "roles", "consent", "access_token_seconds")
MUSTS = ("dpop_bound", "pushed_only")


@dataclass(frozen=True, slots=True)
class _Registration:
    """A client to be, and the secrets that are told once."""

    metadata: ClientMetadata
    client_id: str
    access_token: str = field(repr=False)  # with which it manages itself
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class _Update:
    """What a client wants to be, and the secret it gets if it needs its first one."""

    metadata: ClientMetadata
    access_token: str = field(repr=False)
    secret: str = field(repr=False)


async def register(request: Request) -> Response:
    """Make a client of the metadata that was sent (RFC 7591 section 3)."""
    service = service_of(request)
    initial = _bearer(request)
    if service.settings.client_registration == "off" or (
        service.settings.client_registration == "token" and initial is None
    ):
        raise ProtocolRefused(_unauthorised("Ask an administrator for an initial access token."))
    with limited(request, service.limits.clients):
        return await _registered(request, service, initial)


async def _registered(request: Request, service: AuthService, initial: str | None) -> Response:
    try:
        metadata = read_metadata(await _read_json(request))
        secret = opaque.new_secret() if metadata.token_endpoint_auth_method in BY_SECRET else None
        wanted = _Registration(metadata, opaque.new_id(), opaque.new_secret(), secret)
        await service.key_rotation.ensure(metadata.id_token_signed_response_alg)
        actor = service.actor(request, wanted.client_id)
        client = await service.database.transact(_register, wanted, initial, actor)
    except MetadataRejected as error:
        return _refuse(error)
    if client is None:
        raise ProtocolRefused(_unauthorised("The initial access token has no use left, or never was one."))
    return JSONResponse(_told(service, client, wanted.access_token, wanted.secret), 201, headers=NO_STORE)


async def read(request: Request) -> Response:
    """Tell a client what it has registered (RFC 7592 section 2.1)."""
    service = service_of(request)
    client, token = await _authenticated(request)
    return JSONResponse(_told(service, client, token, None), headers=NO_STORE)


async def change(request: Request) -> Response:
    """Replace a client's metadata (RFC 7592 section 2.2)."""
    service = service_of(request)
    client, token = await _authenticated(request)
    try:
        document = await _read_json(request)
        _check_own(document, client)
        metadata = read_metadata(document)
        await service.key_rotation.ensure(metadata.id_token_signed_response_alg)
        update = _Update(metadata, token, opaque.new_secret())
        actor = service.actor(request, client.id)
        kept = await service.database.transact(clients.change, client.id, partial(_changed, update), actor)
    except MetadataRejected as error:
        return _refuse(error)
    except ClientUnknown:
        raise ProtocolRefused(_unauthorised(NOT_ITS_OWN)) from None
    secret = update.secret if kept.check_client_secret(update.secret) else None
    return JSONResponse(_told(service, kept, token, secret), headers=NO_STORE)


async def remove(request: Request) -> Response:
    """Forget a client and end what it was allowed (RFC 7592 section 2.3)."""
    service = service_of(request)
    client, token = await _authenticated(request)
    with suppress(ClientUnknown):  # it has just been removed
        await service.database.transact(_remove, client.id, token, service.actor(request, client.id))
    return Response(status_code=204, headers=NO_STORE)


def _register(connection: Connection, wanted: _Registration, initial: str | None, actor: Actor) -> Client | None:
    """Take one use of the initial access token and make the client, or neither."""
    policy = Policy()
    if initial is not None:
        token = registration_tokens.use(connection, initial, actor.at)
        if token is None:
            return None
        policy = Policy(token.scopes, OPEN_GRANTS | {CREDENTIALS})
    client = to_client(
        wanted.client_id,
        wanted.metadata,
        policy,
        secret_digest=opaque.digest(wanted.secret) if wanted.secret else None,
        registration_digest=opaque.digest(wanted.access_token),
        origin="registered",
        created_at=actor.at,
    )
    return clients.register(connection, client, actor)


def _changed(update: _Update, client: Client) -> Client:
    """What the client is to be, within what it may have; raises `ProtocolRefused` when it was disabled meanwhile."""
    if not _manages(update.access_token, client):
        raise ProtocolRefused(_unauthorised(NOT_ITS_OWN))
    metadata, digest = update.metadata, client.secret_digest
    if metadata.token_endpoint_auth_method not in BY_SECRET:
        digest = None
    elif digest is None:
        digest = opaque.digest(update.secret)
    # Neither scopes nor grants grow: what an administrator has taken from it would be there again.
    policy = Policy(client.scopes, frozenset(client.grant_types))
    changed = to_client(client.id, metadata, policy, secret_digest=digest)
    kept = {name: getattr(client, name) for name in KEPT}
    musts = {name: getattr(client, name) or getattr(changed, name) for name in MUSTS}  # once it must, it must
    return replace(changed, **kept, **musts)


def _remove(connection: Connection, client_id: str, access_token: str, actor: Actor) -> None:
    """Remove a client; raises `ProtocolRefused` when it was disabled, or is another one, by now."""
    if not _manages(access_token, clients.lock(connection, client_id)):
        raise ProtocolRefused(_unauthorised(NOT_ITS_OWN))
    clients.remove(connection, client_id, actor)


async def _authenticated(request: Request) -> tuple[Client, str]:
    """Return the client whose registration access token was sent; one answer for whatever is wrong with it."""
    service, token = service_of(request), _bearer(request)
    client = await service.database.read(clients.find, request.path_params["client_id"])
    if token is None or client is None or not _manages(token, client):
        raise ProtocolRefused(_unauthorised(NOT_ITS_OWN))
    act_as(client.id)
    return client, token


def _manages(token: str, client: Client) -> bool:
    """Whether whoever has the token may change the client."""
    if client.registration_digest is None or client.disabled_at is not None:
        return False
    return opaque.matches(token, client.registration_digest)


def _check_own(document: Any, client: Client) -> None:
    """RFC 7592 section 2.2: the client names itself, and sends nothing that is ours to say."""
    if not isinstance(document, dict) or document.get("client_id") != client.id:
        raise MetadataRejected("invalid_client_metadata", "client_id must be the client's own")
    if any(name in document for name in ISSUED):
        raise MetadataRejected("invalid_client_metadata", f"{', '.join(ISSUED)} must be left out")
    secret = document.get("client_secret")
    if secret is not None and not (isinstance(secret, str) and client.check_client_secret(secret)):
        raise MetadataRejected("invalid_client_metadata", "client_secret must be the current one, or left out")


def _told(service: AuthService, client: Client, access_token: str, secret: str | None) -> dict[str, Any]:
    """RFC 7591 section 3.2.1; a secret is told when it is made and never again."""
    told = describe(client) | {
        "registration_access_token": access_token,
        "registration_client_uri": f"{service.issuer.url}/oauth2/register/{client.id}",
    }
    return told | ({"client_secret": secret, "client_secret_expires_at": 0} if secret else {})


async def _read_json(request: Request) -> Any:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise MetadataRejected("invalid_client_metadata", "the body must be application/json")
    try:
        return from_json(await request.body())
    except ValueError as error:
        raise MetadataRejected("invalid_client_metadata", "the body must be JSON") from error


def _bearer(request: Request) -> str | None:
    credentials = read_credentials(request)
    return credentials.token if credentials is not None and credentials.scheme == "bearer" else None


def _unauthorised(description: str) -> Answer:
    return replace(
        refusal("invalid_token", description, status=401),
        headers={"www-authenticate": 'Bearer error="invalid_token"'},
    )


def _refuse(error: MetadataRejected) -> Response:
    told = {"error": error.error, "error_description": in_words(error.description)}
    return JSONResponse(told, 400, headers=NO_STORE)
