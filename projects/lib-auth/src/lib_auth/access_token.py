"""From an access token to a principal: RFC 9068 checks, a cache of what was verified, revocation every time."""

import hashlib
import time
from collections.abc import Callable, Container, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, Protocol

from joserfc import jws
from joserfc.errors import BadSignatureError, JoseError
from pydantic_core import from_json

from lib_auth.compact import take_apart
from lib_auth.jwks import ALGORITHMS, KeySource, PublicKey, algorithm_of
from lib_auth.numeric_date import read_numeric_date
from lib_auth.principal import Principal

MAX_TOKEN_LENGTH = 8_192
# RFC 9068 section 4: both spellings of the media type are to be accepted.
TOKEN_TYPES = frozenset(("at+jwt", "application/at+jwt"))
MAX_ACTORS = 8
# The clocks of two machines, and an issuer that says a later second where rights were changed several times within one.
LEEWAY_SECONDS = 30.0
ONLY = {algorithm: jws.JWSRegistry(algorithms=[algorithm]) for algorithm in ALGORITHMS}

type RejectionReason = Literal[
    "malformed",
    "algorithm",
    "type",
    "key",
    "signature",
    "issuer",
    "audience",
    "expired",
    "early",
    "claims",
    "revoked",
    "binding",
    "proof",
]


class TokenRejected(Exception):
    """An access token is no good here; `reason` is for logs and tests, `detail` for the client's developer."""

    def __init__(self, reason: RejectionReason, detail: str) -> None:
        super().__init__(detail)
        self.reason: RejectionReason = reason
        self.detail = detail


class RevocationsUnknown(Exception):
    """Nobody can say right now whether a token was revoked, so it cannot be accepted."""


class RevocationCheck(Protocol):
    """Tells whether a verified token was revoked."""

    async def is_revoked(self, principal: Principal, token: str) -> bool:
        """Whether the token may no longer be used; raises `RevocationsUnknown`."""
        ...


class _Verified(NamedTuple):
    """What is remembered of a token that was checked whole."""

    principal: Principal
    expires_at: float
    key_id: str
    key: PublicKey


class TokenVerifier:
    """Verifies access tokens of one issuer for one audience.

    `algorithms` are those that tokens may be signed with: whoever registered as a resource server with `RS256` may
    narrow them to that.
    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: str | Container[str],
        keys: KeySource,
        revocations: RevocationCheck,
        algorithms: Sequence[str] = ALGORITHMS,
        leeway_seconds: float = LEEWAY_SECONDS,
        cache_size: int = 10_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.issuer = issuer
        self._audiences: Container[str] = (audience,) if isinstance(audience, str) else audience
        self._keys = keys
        self._revocations = revocations
        self._algorithms = check_algorithms(algorithms)
        self._leeway = leeway_seconds
        self._cache_size = cache_size
        self._clock = clock
        self._verified: dict[bytes, _Verified] = {}

    async def verify(self, token: str) -> Principal:
        """Return who holds `token`; raises `TokenRejected`, `KeysUnavailable` or `RevocationsUnknown`."""
        principal = await self._verify_once(token)
        if await self._revocations.is_revoked(principal, token):
            raise TokenRejected("revoked", "the access token was revoked")
        return principal

    async def _verify_once(self, token: str) -> Principal:
        if len(token) > MAX_TOKEN_LENGTH:
            raise TokenRejected("malformed", f"the access token is longer than {MAX_TOKEN_LENGTH} characters")
        digest = hashlib.sha256(token.encode()).digest()
        # What was signed with a stolen key may say that it lives for ever: it is good while that key is the issuer's.
        if (known := self._verified.get(digest)) and await self._keys.find(known.key_id) is known.key:
            if self._clock() < known.expires_at:
                return known.principal
            raise TokenRejected("expired", "the access token has expired")
        key_id, key, claims = await self._read(token)
        principal = self._check(claims, key_id)
        self._remember(digest, _Verified(principal, float(claims["exp"]), key_id, key))
        return principal

    async def _read(self, token: str) -> tuple[str, PublicKey, dict[str, Any]]:
        """Check the signature with the key the token names; returns the key's id, the key and the claims."""
        try:
            signed = take_apart(token)
            header = signed.headers()
        except (JoseError, ValueError) as error:
            raise TokenRejected("malformed", "the access token is not a signed JWT") from error
        key_id = _check_header(header, self._algorithms)
        key = await self._keys.find(key_id)
        if key is None:
            raise TokenRejected("key", "the access token names a key the issuer does not have")
        algorithm = algorithm_of(key)
        if header["alg"] != algorithm:
            raise TokenRejected("algorithm", f"the key that the access token names signs with {algorithm}")
        try:
            if not jws.validate_compact(signed, key, registry=ONLY[algorithm]):
                raise BadSignatureError
            claims = from_json(signed.payload)
        except (JoseError, ValueError) as error:
            raise TokenRejected("signature", "the access token's signature does not fit") from error
        if not isinstance(claims, dict):
            raise TokenRejected("claims", "the access token carries no claims")
        return key_id, key, claims

    def _check(self, claims: Mapping[str, Any], key_id: str) -> Principal:
        """Check the claims of RFC 9068 section 2.2 and make the principal of them."""
        now = self._clock()
        if claims.get("iss") != self.issuer:
            raise TokenRejected("issuer", f"the access token must come from {self.issuer}")
        audience = claims.get("aud")
        if not isinstance(audience, str) or audience not in self._audiences:
            raise TokenRejected("audience", "the access token is meant for another service")
        if now >= _read_time(claims, "exp"):
            raise TokenRejected("expired", "the access token has expired")
        not_before = _read_time(claims, "nbf") if "nbf" in claims else 0.0
        if max(_read_time(claims, "iat"), not_before) > now + self._leeway:
            raise TokenRejected("early", "the access token is not valid yet; are the clocks in step?")
        return _to_principal(claims, key_id)

    def _remember(self, digest: bytes, verified: _Verified) -> None:
        if len(self._verified) >= self._cache_size:
            self._verified.pop(next(iter(self._verified)))  # dictionaries keep order: the oldest goes
        self._verified[digest] = verified


def check_algorithms(algorithms: Sequence[str]) -> tuple[str, ...]:
    """Return the allow list of a verifier; raises `ValueError` for what is no signature of an issuer's key."""
    chosen = tuple(algorithms)
    if not chosen or not set(chosen) <= set(ALGORITHMS):
        known = ", ".join(ALGORITHMS)
        raise ValueError(f"algorithms must be some of {known}, got {algorithms!r}; leave them out for all")
    return chosen


def _check_header(header: Mapping[str, Any], algorithms: Sequence[str]) -> str:
    """Return the key id; the algorithms are ours to choose, never the token's (RFC 8725 section 3.1)."""
    if header.get("alg") not in algorithms:
        raise TokenRejected("algorithm", f"the access token must be signed with {' or '.join(algorithms)}")
    if str(header.get("typ", "")).lower() not in TOKEN_TYPES:
        raise TokenRejected("type", "the token is not an access token: its header 'typ' must be at+jwt")
    if "crit" in header:
        raise TokenRejected("malformed", "the access token's header names extensions nobody here understands")
    key_id = header.get("kid")
    if not isinstance(key_id, str):
        raise TokenRejected("key", "the access token must name its key in the header 'kid'")
    return key_id


def _read_time(claims: Mapping[str, Any], name: str) -> float:
    value = read_numeric_date(claims.get(name))
    if value is None:
        raise TokenRejected("claims", f"the access token's claim {name!r} must be a number that is a date")
    return value


def _read_text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value:
        raise TokenRejected("claims", f"the access token's claim {name!r} must be a text")
    return value


def _to_principal(claims: Mapping[str, Any], key_id: str) -> Principal:
    roles = claims.get("roles", [])
    if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
        raise TokenRejected("claims", "the access token's claim 'roles' must be a list of texts")
    permissions = claims.get("permissions", [])
    if not isinstance(permissions, list) or not all(isinstance(name, str) for name in permissions):
        raise TokenRejected("claims", "the access token's claim 'permissions' must be a list of texts")
    scope = claims.get("scope", "")
    if not isinstance(scope, str):
        raise TokenRejected("claims", "the access token's claim 'scope' must be a text")
    return Principal(
        subject=_read_text(claims, "sub"),
        client_id=_read_text(claims, "client_id"),
        scopes=frozenset(scope.split()),
        roles=frozenset(roles),
        token_id=_read_text(claims, "jti"),
        session_id=_optional_text(claims, "sid"),
        username=_optional_text(claims, "preferred_username"),
        audience=_read_text(claims, "aud"),
        issued_at=datetime.fromtimestamp(_read_time(claims, "iat"), UTC),
        expires_at=datetime.fromtimestamp(_read_time(claims, "exp"), UTC),
        acr=_optional_text(claims, "acr"),
        authenticated_at=_optional_time(claims, "auth_time"),
        family_id=_optional_text(claims, "family"),
        key_id=key_id,
        key_thumbprint=_confirmation(claims),
        actors=_actors(claims),
        permissions=frozenset(permissions),
    )


def _confirmation(claims: Mapping[str, Any]) -> str | None:
    """The key a token is bound to; a binding nobody here can check refuses the token (RFC 7800 section 3.1)."""
    if "cnf" not in claims:
        return None
    confirmation = claims["cnf"]
    if not isinstance(confirmation, dict) or set(confirmation) != {"jkt"}:
        raise TokenRejected("claims", "the access token is bound in a way that is not known here")
    return _read_text(confirmation, "jkt")


def _actors(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """Who acts for the subject: the outermost actor, and within it who acted before (RFC 8693 section 4.1)."""
    actors: list[str] = []
    actor = claims.get("act")
    while actor is not None:
        if not isinstance(actor, dict) or len(actors) == MAX_ACTORS:
            raise TokenRejected("claims", "the access token's claim 'act' must be an object, not too deep")
        actors.append(_read_text(actor, "sub"))
        actor = actor.get("act")
    return tuple(actors)


def _optional_time(claims: Mapping[str, Any], name: str) -> datetime | None:
    return datetime.fromtimestamp(_read_time(claims, name), UTC) if claims.get(name) is not None else None


def _optional_text(claims: Mapping[str, Any], name: str) -> str | None:
    return _read_text(claims, name) if claims.get(name) is not None else None
