"""`private_key_jwt`: a client proves who it is with a signed statement instead of a secret (RFC 7523 section 3)."""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from authlib.oauth2.rfc6749 import InvalidClientError
from joserfc import jws
from joserfc.errors import JoseError
from pydantic_core import from_json

from auth_svc.clients.client import BY_KEY, Client
from auth_svc.parameters import MAX_ASSERTION
from auth_svc.protocol.decision import Decision
from auth_svc.protocol.effects import UseAssertion
from auth_svc.protocol.families import MICROS
from auth_svc.protocol.request import ProtocolRequest
from lib_auth.compact import read_header
from lib_auth.numeric_date import read_numeric_date

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ALGORITHMS: Final = ("ES256", "Ed25519", "PS256", "RS256")
LEEWAY_SECONDS = 10
LONGEST_SECONDS = 600  # an assertion is made for the moment; its `jti` is kept as long


def authenticate_by_key(decision: Decision, request: ProtocolRequest) -> Client | None:
    """Return the client whose key signed the assertion, or None when there is none; raises `InvalidClientError`."""
    assertion = request.form.get("client_assertion")
    client = decision.rows.client
    if assertion is None or request.form.get("client_assertion_type") != ASSERTION_TYPE:
        return None
    if client is None or client.auth_methods != (BY_KEY,) or len(assertion) > MAX_ASSERTION:
        raise InvalidClientError
    claims = _read(decision, assertion)
    _check(decision, client, claims)
    # RFC 7523 section 3: `jti` is seen once, as long as the assertion could be accepted.
    digest = hashlib.sha256(f"{client.id} {claims['jti']}".encode()).digest()
    decision.effects.append(UseAssertion(digest, int((claims["exp"] + LEEWAY_SECONDS) * MICROS)))
    return client


def _read(decision: Decision, assertion: str) -> Mapping[str, Any]:
    """Return the claims, if one of the client's keys signed them."""
    keys = decision.rows.client_keys
    try:
        header = read_header(assertion)
        if keys is None or header.get("alg") not in ALGORITHMS or "crit" in header:
            raise InvalidClientError
        for key in keys.keys:
            if header.get("kid") in (None, key.kid) and (claims := _verified(assertion, key)) is not None:
                return claims
    except (JoseError, ValueError) as error:
        raise InvalidClientError from error
    raise InvalidClientError


def _verified(assertion: str, key: Any) -> Mapping[str, Any] | None:
    try:
        claims = from_json(jws.deserialize_compact(assertion, key, algorithms=list(ALGORITHMS)).payload)
    except (JoseError, ValueError, TypeError):
        return None  # another key may fit
    return claims if isinstance(claims, dict) else None


def _check(decision: Decision, client: Client, claims: Mapping[str, Any]) -> None:
    """RFC 7523 section 3: who says it, about whom, to whom, and until when."""
    now, expires_at, token_id = decision.now / MICROS, _time(claims, "exp", 0), claims.get("jti")
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    # The issuer is the audience that names one server only; endpoints are what older clients name (RFC 7523 errata).
    known = {decision.issuer.url, *(f"{decision.issuer.url}/oauth2/{name}" for name in ENDPOINTS)}
    if not (
        claims.get("iss") == client.id == claims.get("sub")
        and len(audiences) == 1
        and audiences[0] in known
        and isinstance(token_id, str)
        and token_id
        and now - LEEWAY_SECONDS < expires_at < now + LONGEST_SECONDS
        and all(_time(claims, name, now) <= now + LEEWAY_SECONDS for name in ("iat", "nbf"))
    ):
        raise InvalidClientError


ENDPOINTS = ("token", "par", "introspect", "revoke", "device_authorization")


def _time(claims: Mapping[str, Any], name: str, missing: float) -> float:
    value = read_numeric_date(claims.get(name, missing))
    if value is None:
        raise InvalidClientError
    return value
