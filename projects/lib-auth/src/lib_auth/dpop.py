"""DPoP (RFC 9449): proof that whoever sends a token, or asks for one, holds the key it is bound to."""

import base64
import hashlib
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey, import_key
from pydantic_core import from_json

from lib_auth.compact import read_header
from lib_auth.jwks import check_rsa
from lib_auth.numeric_date import read_numeric_date

ALGORITHMS: Final = ("ES256", "Ed25519", "PS256", "RS256")  # asymmetric ones only (section 4.3)
PROOF_TYPE = "dpop+jwt"
MAX_PROOF_LENGTH = 4_096
FRESH_SECONDS = 60.0  # a proof may be this old, or ahead of our clock
KEPT_SECONDS = 3 * FRESH_SECONDS  # longer than one ahead of our clock could come again, by a clock a minute behind
DEFAULT_PORTS = {"http": 80, "https": 443}
ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
UNRESERVED = frozenset(f"{string.ascii_letters}{string.digits}-._~")  # RFC 3986 section 2.3: as good without its escape


class _Registry(jws.JWSRegistry):
    """A proof's header holds a key: an RSA key does not fit into the library's 512 bytes."""

    max_header_length = 2_048


REGISTRY: Final = _Registry(algorithms=ALGORITHMS)


class ProofRejected(Exception):
    """A DPoP proof proves nothing here; the text is for the client's developer."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What a valid proof says; whether it was used before, and whether its nonce is ours, is for the server to say."""

    thumbprint: str  # of the key, RFC 7638 with SHA-256
    digest: bytes  # what must not come twice
    issued_at: float  # seconds since the epoch
    nonce: str | None


def read_proof(text: str, *, method: str, url: str, access_token: str | None = None) -> Proof:
    """Check a proof for one request (section 4.3) but for its age; raises `ProofRejected`.

    `access_token` is the token it comes with: a proof for a resource server names it (`ath`).
    """
    if len(text) > MAX_PROOF_LENGTH:
        raise ProofRejected(f"the DPoP proof must be at most {MAX_PROOF_LENGTH} characters")
    key, claims = _open(text)
    if claims.get("htm") != method:
        raise ProofRejected(f"the DPoP proof must be for the method {method} (htm)")
    if not _same_url(claims.get("htu"), url):
        raise ProofRejected("the DPoP proof must be for this URL (htu)")
    token_id, issued_at, nonce = claims.get("jti"), read_numeric_date(claims.get("iat")), claims.get("nonce")
    if not isinstance(token_id, str) or not token_id:
        raise ProofRejected("the DPoP proof must have a unique 'jti'")
    if issued_at is None:
        raise ProofRejected("the DPoP proof must say when it was made (iat)")
    if nonce is not None and not isinstance(nonce, str):
        raise ProofRejected("the DPoP proof's nonce must be a text")
    if access_token is not None and claims.get("ath") != hash_of(access_token):
        raise ProofRejected("the DPoP proof must be for this access token (ath)")
    thumbprint = key.thumbprint()
    return Proof(thumbprint, hashlib.sha256(f"{thumbprint} {token_id}".encode()).digest(), issued_at, nonce)


def check_fresh(proof: Proof, now: float) -> None:
    """Raise `ProofRejected` for a proof that was not made just now (section 11.1)."""
    if abs(now - proof.issued_at) > FRESH_SECONDS:
        raise ProofRejected("the DPoP proof was not made just now (iat); are the clocks in step?")


def hash_of(access_token: str) -> str:
    """The `ath` of a token: BASE64URL(SHA-256) (section 4.2)."""
    digest = hashlib.sha256(access_token.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


class ReplayMemory(Protocol):
    """Remembers the proofs that were used (section 11.1); of several who bring the same one at once, one is first."""

    async def take(self, digest: bytes, now: float) -> bool:
        """Remember a proof by its digest for `KEPT_SECONDS` from `now` on; False when it is remembered already."""
        ...


class SeenProofs:
    """The `ReplayMemory` of one process, gone when it ends; bounded."""

    def __init__(self, *, limit: int = 100_000) -> None:
        self._limit = limit
        self._seen: dict[bytes, float] = {}

    async def take(self, digest: bytes, now: float) -> bool:
        """Remember a proof; False when it came before."""
        while self._seen and (len(self._seen) >= self._limit or next(iter(self._seen.values())) < now):
            self._seen.pop(next(iter(self._seen)))  # dictionaries keep order: the oldest goes
        if digest in self._seen:
            return False
        self._seen[digest] = now + KEPT_SECONDS
        return True


def _open(text: str) -> tuple[Key, Mapping[str, Any]]:
    """Return the key the proof carries and what it signed."""
    try:
        header = read_header(text, registry=REGISTRY)
    except (JoseError, ValueError) as error:
        raise ProofRejected("the DPoP proof must be a signed JWT") from error
    if header.get("typ") != PROOF_TYPE or header.get("alg") not in ALGORITHMS or "crit" in header:
        raise ProofRejected(
            f"the DPoP proof's header must have typ {PROOF_TYPE} and one of alg {', '.join(ALGORITHMS)}"
        )
    key = _public_key(header.get("jwk"))
    try:
        claims = from_json(jws.deserialize_compact(text, key, registry=REGISTRY).payload)
    except (JoseError, ValueError, TypeError) as error:
        raise ProofRejected("the DPoP proof's signature does not fit its key") from error
    if not isinstance(claims, dict):
        raise ProofRejected("the DPoP proof carries no claims")
    return key, claims


def _public_key(member: Any) -> Key:
    """The key in the header: asymmetric, and its public half alone."""
    if not isinstance(member, dict):
        raise ProofRejected("the DPoP proof's header must carry the public key (jwk)")
    try:
        key = import_key(member) if member.get("kty") in ("EC", "OKP", "RSA") else None
    except (JoseError, ValueError, KeyError, TypeError) as error:
        raise ProofRejected("the DPoP proof's jwk is not a key") from error
    if not isinstance(key, ECKey | OKPKey | RSAKey) or key.is_private:
        raise ProofRejected("the DPoP proof's jwk must be a public key; keep the private half to yourself")
    if isinstance(key, RSAKey):
        try:
            check_rsa(key)
        except ValueError as error:
            raise ProofRejected(f"the DPoP proof's jwk cannot be used: {error}") from error
    return key


def _same_url(claimed: Any, url: str) -> bool:
    """Compare without query and fragment, after normalisation (section 4.3, RFC 3986 sections 6.2.2 and 6.2.3)."""
    if not isinstance(claimed, str):
        return False
    try:
        return _normalised(claimed) == _normalised(url)
    except ValueError:
        return False


def _normalised(url: str) -> tuple[str, str, int | None, str]:
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    path = ESCAPE.sub(_normal_escape, parts.path or "/")
    return scheme, (parts.hostname or ""), parts.port or DEFAULT_PORTS.get(scheme), path


def _normal_escape(escape: re.Match[str]) -> str:
    letter = chr(int(escape[1], 16))
    return letter if letter in UNRESERVED else escape[0].upper()
