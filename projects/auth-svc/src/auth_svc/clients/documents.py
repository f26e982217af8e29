"""Clients named by the URL of their metadata (OAuth Client ID Metadata Document): read, checked, kept an hour."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from pydantic_core import from_json
from sqlalchemy.exc import IntegrityError

from auth_svc.audit import Actor
from auth_svc.clients import clients
from auth_svc.clients.client import Client, ClientRejected
from auth_svc.clients.metadata import ClientMetadata, MetadataRejected, Policy, read_metadata, to_client
from auth_svc.protocol.families import MICROS
from auth_svc.rate_limits import Attempts, TooManyAttempts
from lib_events.clock import Clock
from lib_events.database import Connection, Database
from lib_events.http.checked import CheckedHttp, RequestFailed
from lib_events.http.destinations import DestinationRefused

FRESH_MICROS = 3_600 * MICROS
LIMIT_BYTES = 10 * 1024  # the draft recommends 5 KB
ACCEPT = (("accept", "application/json"),)
# Whatever its document says now.
KEPT = ("created_at", "disabled_at", "roles", "consent", "access_token_seconds")
WITHOUT_SECRET = frozenset(("none", "private_key_jwt"))


class DocumentRejected(Exception):
    """A client's document cannot be used; the text is for the client's developer."""


def names_document(client_id: str) -> bool:
    """Whether a client id is the URL of a document: with a path, and nothing that hides where it leads (section 3)."""
    if not client_id.startswith(("https://", "http://")):
        return False
    try:
        parts = urlsplit(client_id)
    except ValueError:
        return False
    segments = parts.path.split("/")
    plain = not parts.fragment and "@" not in parts.netloc and bool(parts.hostname)
    return plain and len(parts.path) > 1 and "." not in segments and ".." not in segments


class ClientDocuments:
    """Reads documents of clients that people are sent by, for as many networks of strangers as may ask."""

    def __init__(
        self,
        database: Database,
        http: CheckedHttp,
        limits: Attempts,
        clock: Clock,
        *,
        allowed: bool,
        ensure_key: Callable[[str], Awaitable[None]],
    ) -> None:
        self._allowed = allowed
        self._ensure_key = ensure_key  # that signs the ID tokens a client wants
        self._database = database
        self._http = http
        self._limits = limits
        self._clock = clock
        self._looking = WeakValueDictionary[str, asyncio.Lock]()  # by client

    async def ensure(self, client_id: str | None, network: str) -> None:
        """Have an up-to-date row for a client that is named by its document; raises `DocumentRejected`."""
        if not self._allowed or client_id is None or not names_document(client_id):
            return
        looking = self._looking.setdefault(client_id, asyncio.Lock())
        async with looking:  # of many who come at once by a client that is new, one looks it up
            await self._renew(client_id, network)

    async def _renew(self, client_id: str, network: str) -> None:
        known = await self._database.read(clients.find, client_id)
        now = self._clock.micros()
        if known is not None and known.fetched_at is not None and now - known.fetched_at < FRESH_MICROS:
            return
        try:
            self._limits.begin(network)
        except TooManyAttempts as error:
            raise DocumentRejected(f"too many clients are looked up from there; wait {error.wait}") from error
        client = await self._fetch(client_id, now)
        await self._ensure_key(client.id_token_algorithm)
        try:
            await self._database.transact(_keep, client, Actor(now, client_id))
        except (ClientRejected, IntegrityError) as error:
            if known is None and await self._database.read(clients.find, client_id) is not None:
                return  # another process met it at the same moment
            raise DocumentRejected("the client cannot be kept") from error

    async def _fetch(self, client_id: str, now: int) -> Client:
        try:
            answer = await self._http.request("GET", client_id, headers=ACCEPT, limit_bytes=LIMIT_BYTES)
        except (DestinationRefused, RequestFailed) as error:
            raise DocumentRejected(f"the client's document cannot be read: {error}") from error
        if answer.status != 200 or not answer.is_whole:
            raise DocumentRejected(f"the client's document must be answered with 200 and at most {LIMIT_BYTES} bytes")
        try:
            metadata = _read(client_id, answer.body)
            return to_client(client_id, metadata, Policy(), origin="document", created_at=now, fetched_at=now)
        except MetadataRejected as error:
            raise DocumentRejected(f"the client's document is not right: {error.description}") from error


def _read(client_id: str, body: bytes) -> ClientMetadata:
    try:
        document = from_json(body)
    except ValueError as error:
        raise DocumentRejected("the client's document must be JSON") from error
    if not isinstance(document, dict) or document.get("client_id") != client_id:
        raise DocumentRejected("the document's client_id must be the URL it is read from")
    if document.keys() & {"client_secret", "client_secret_expires_at"}:
        raise DocumentRejected("the document must not have a client_secret: everybody can read it")
    metadata = read_metadata({"token_endpoint_auth_method": "none"} | document)
    if metadata.token_endpoint_auth_method not in WITHOUT_SECRET:
        raise DocumentRejected("the document's token_endpoint_auth_method must be none or private_key_jwt")
    return metadata


def _keep(connection: Connection, client: Client, actor: Actor) -> None:
    known = clients.find(connection, client.id)
    if known is None:
        clients.register(connection, client, actor)
    else:
        clients.change(connection, client.id, partial(_renewed, client), actor)


def _renewed(read: Client, known: Client) -> Client:
    return replace(read, **{name: getattr(known, name) for name in KEPT})
