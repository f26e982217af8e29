"""The issuer's public keys: fetched once, found by key id, fetched again when an unknown key id turns up."""

import asyncio
import time
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Final, Protocol

import httpx
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey
from joserfc.util import urlsafe_b64decode

ALGORITHM: Final = "ES256"  # what the issuer signs with unless a resource server wants the other
RSA: Final = "RS256"
ALGORITHMS: Final = (ALGORITHM, RSA)  # RFC 9068 section 2.1: RS256 must be among them
CURVE: Final = "P-256"
LEAST_RSA_BITS: Final = 2_048  # RFC 7518 section 3.3
MOST_EXPONENT_BITS: Final = 64  # everybody's is 65537; one as long as the modulus makes each check fifty times as slow
FETCH_TIMEOUT_SECONDS = 5.0

type PublicKey = ECKey | RSAKey


class KeysUnavailable(Exception):
    """The issuer's keys are not known yet and cannot be fetched."""


class KeySource(Protocol):
    """Finds the public key a token names."""

    async def find(self, key_id: str) -> PublicKey | None:
        """Return the key, or None when the issuer has no such key; raises `KeysUnavailable`."""
        ...


def algorithm_of(key: PublicKey) -> str:
    """Return the one algorithm a key is for: it is the key that says so, never the token (RFC 8725 section 3.1)."""
    return RSA if isinstance(key, RSAKey) else ALGORITHM


def check_rsa(key: RSAKey) -> None:
    """Raise `ValueError` for a stranger's key that could be broken, or that is made to keep us busy."""
    if key.raw_value.key_size < LEAST_RSA_BITS:
        raise ValueError(f"an RSA key must have at least {LEAST_RSA_BITS} bits (RFC 7518 section 3.3)")
    if key.public_key.public_numbers().e.bit_length() > MOST_EXPONENT_BITS:
        raise ValueError(f"an RSA key's exponent must have at most {MOST_EXPONENT_BITS} bits; use 65537")


def read_keys(document: Any) -> dict[str, PublicKey]:
    """Return the ES256 and RS256 signing keys of a JWK set by key id; other keys are of no use to us."""
    members = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(members, list):
        raise KeysUnavailable("the issuer's JWK set must be an object with the array 'keys'")
    keys: dict[str, PublicKey] = {}
    for member in members:
        if not isinstance(member, Mapping) or "kid" not in member or member.get("use", "sig") != "sig":
            continue
        try:
            key = _read_key(member)
        except (JoseError, KeyError, ValueError):
            continue  # RFC 7517 section 5: a key we cannot use is ignored, the others stand
        if key is not None:
            keys[str(member["kid"])] = key
    return keys


class RemoteKeys:
    """A `KeySource` over HTTP; an unknown key id refetches, but not more often than `retry_seconds`.

    Without an answer the keys that are known stay in use, but no longer than `last_seconds`: for as long a key that was
    revoked is refused by its name, and then only what the issuer publishes says that it has it no more.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        jwks_url: str,
        *,
        fresh_seconds: float = 300.0,
        last_seconds: float = 3_600.0,
        retry_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._url = jwks_url
        self._fresh_seconds = fresh_seconds
        self._last_seconds = last_seconds
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._keys: dict[str, PublicKey] = {}
        self._fetched_at = self._tried_at = -inf
        self._is_silent = False  # the last try brought nothing
        self._fetching = asyncio.Lock()

    async def find(self, key_id: str) -> PublicKey | None:
        """Return the key, or None when the issuer has no such key; raises `KeysUnavailable`."""
        if self._needs_fetch(key_id) and not (self._fetching.locked() and self._is_known(key_id)):
            async with self._fetching:
                if self._may_fetch():  # else somebody has just tried
                    await self._fetch()
        if self._is_silent and not self._is_known(key_id):  # it may be one that signs since a moment ago
            raise KeysUnavailable(f"the issuer's keys cannot be read from {self._url}; is it running?")
        return self._keys.get(key_id)

    def _needs_fetch(self, key_id: str) -> bool:
        return key_id not in self._keys or self._age() > self._fresh_seconds

    def _is_known(self, key_id: str) -> bool:
        return key_id in self._keys and self._age() <= self._last_seconds

    def _age(self) -> float:
        return self._clock() - self._fetched_at

    def _may_fetch(self) -> bool:
        return self._clock() - self._tried_at >= self._retry_seconds

    async def _fetch(self) -> None:
        """Replace the keys, which are those of the moment of the question; without an answer they stay."""
        asked_at = self._clock()
        self._is_silent = True
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_SECONDS):  # of all of it: a byte now and then is no answer
                answer = await self._http.get(self._url)
            answer.raise_for_status()
            self._keys = read_keys(answer.json())
        except (httpx.HTTPError, TimeoutError, ValueError, KeysUnavailable):
            return
        finally:
            self._tried_at = self._clock()  # not before: those who waited meanwhile must not try one after the other
        self._fetched_at, self._is_silent = asked_at, False


def _read_key(member: Mapping[str, Any]) -> PublicKey | None:
    """Read the public half of a member; one that says it is for another algorithm is not for us."""
    match member.get("kty"), member.get("alg"):
        case "EC", None | "ES256" if member.get("crv") == CURVE:
            return ECKey.import_key({name: str(member[name]) for name in ("kty", "crv", "x", "y")})
        case "RSA", None | "RS256":
            modulus = int.from_bytes(urlsafe_b64decode(str(member["n"]).encode()))
            if modulus.bit_length() >= LEAST_RSA_BITS:
                return RSAKey.import_key({name: str(member[name]) for name in ("kty", "n", "e")})
    return None
