"""The public keys of clients that prove themselves with one: from their rows, or from where they are published."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakValueDictionary

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, KeySet, OKPKey, RSAKey, import_key
from pydantic_core import from_json, to_json

from auth_svc.clients.client import BY_KEY, Client
from auth_svc.parameters import MAX_ASSERTION
from lib_auth.compact import read_header
from lib_auth.jwks import check_rsa
from lib_events.http.checked import CheckedHttp, RequestFailed
from lib_events.http.destinations import DestinationRefused

DOCUMENT_LIMIT_BYTES = 64 * 1024
FRESH_SECONDS = 300.0
RETRY_SECONDS = 30.0  # between two looks for a key that was not there
REMEMBERED = 1_000
MOST_KEYS = 20
ACCEPT = (("accept", "application/jwk-set+json, application/json"),)


class KeysRejected(Exception):
    """A JWK set cannot be a client's: the text says why."""


def read_key_set(document: bytes | str) -> KeySet:
    """Return the public keys of a JWK set; raises `KeysRejected`."""
    try:
        members = from_json(document)["keys"]
        keys = [key for member in members if (key := _public(member)) is not None]
    except (JoseError, ValueError, KeyError, TypeError) as error:
        raise KeysRejected("must be a JWK set with the array 'keys'") from error
    if not 1 <= len(keys) <= MOST_KEYS:
        raise KeysRejected(f"must have 1 to {MOST_KEYS} keys, got {len(keys)}")
    return KeySet(keys)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where keys are: a JWK set of its own, or inside the document that a client is named by."""

    url: str
    is_document: bool = False

    def read(self, body: bytes) -> KeySet:
        """Return the keys there; raises `KeysRejected`."""
        if not self.is_document:
            return read_key_set(body)
        document = from_json(body)
        if not isinstance(document, dict) or document.get("client_id") != self.url:
            raise KeysRejected("must be in the client's document")
        return read_key_set(to_json(document.get("jwks")))


@dataclass(frozen=True, slots=True)
class _Fetched:
    """What a URL had, and when it was asked."""

    keys: KeySet | None
    at: float

    def is_good_for(self, key_id: str | None, now: float) -> bool:
        """Whether it need not be asked for that key: a client may have a new one (OpenID Connect Core 10.1.1)."""
        is_there = self.keys is not None and (key_id is None or key_id in {key.kid for key in self.keys.keys})
        return now - self.at < (FRESH_SECONDS if is_there else RETRY_SECONDS)


class ClientKeys:
    """Finds a client's keys; those of a URL are asked for again after five minutes, or for a key that is not there."""

    def __init__(self, http: CheckedHttp, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._http = http
        self._clock = clock
        self._fetched: dict[_Place, _Fetched] = {}
        self._asking = WeakValueDictionary[_Place, asyncio.Lock]()

    async def of(self, client: Client | None, assertion: str | None) -> KeySet | None:
        """Return the keys of a client that proves itself with one; None where there are none to be had."""
        if client is None or client.auth_method != BY_KEY:
            return None
        if client.jwks is not None and client.origin != "document":
            return _keys_of(client.jwks)
        # Those of a document are what it says now: between two sign-ins there may be months.
        place = _Place(client.jwks_uri or "") if client.jwks is None else _Place(client.id, is_document=True)
        return await self._fetch(place, _key_named_by(assertion))

    async def _fetch(self, place: "_Place", key_id: str | None) -> KeySet | None:
        asking = self._asking.setdefault(place, asyncio.Lock())
        async with asking:  # whoever sends a thousand requests at once must not make a thousand of them
            fetched = self._fetched.get(place)
            if fetched is not None and fetched.is_good_for(key_id, self._clock()):
                return fetched.keys
            return await self._ask(place)

    async def _ask(self, place: "_Place") -> KeySet | None:
        try:
            answer = await self._http.request("GET", place.url, headers=ACCEPT, limit_bytes=DOCUMENT_LIMIT_BYTES)
            found = place.read(answer.body) if answer.status == 200 and answer.is_whole else None
        except (DestinationRefused, RequestFailed, ValueError, KeysRejected):
            found = None  # remembered, too: a server that hangs is not asked at every request
        self._fetched.pop(place, None)
        if len(self._fetched) >= REMEMBERED:
            self._fetched.pop(next(iter(self._fetched)))  # dictionaries keep order: the oldest goes
        self._fetched[place] = _Fetched(found, self._clock())
        return found


def _key_named_by(assertion: str | None) -> str | None:
    """Which key an assertion says has signed it; whether it says so in the right way is looked at later."""
    try:
        key_id = read_header((assertion or "")[:MAX_ASSERTION]).get("kid")
    except (JoseError, ValueError):
        return None
    return key_id if isinstance(key_id, str) else None


def _keys_of(kept: str) -> KeySet | None:
    """The keys of a row; some that came before today's rules, or by an import, are none."""
    try:
        return read_key_set(kept)
    except KeysRejected:
        return None


def _public(member: object) -> Key | None:
    """Return the key, or None for one of a type that is not known here: that is ignored (RFC 7517 section 5)."""
    if not isinstance(member, dict):
        raise KeysRejected("each key must be an object")
    if (kind := member.get("kty")) not in ("EC", "OKP", "RSA", "oct"):
        return None
    key = import_key(member) if kind != "oct" else None
    if not isinstance(key, ECKey | OKPKey | RSAKey) or key.is_private:
        raise KeysRejected("each key must be the public half of an asymmetric one; keep the private half to yourself")
    if isinstance(key, RSAKey):
        try:
            check_rsa(key)
        except ValueError as error:
            raise KeysRejected(str(error)) from error
    return key
