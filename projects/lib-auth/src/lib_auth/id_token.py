"""From an ID token to who signed in: the checks of OpenID Connect Core section 3.1.3.7."""

import time
from collections.abc import Sequence
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from pydantic_core import from_json

from lib_auth.compact import read_header
from lib_auth.jwks import ALGORITHMS, KeySource
from lib_auth.numeric_date import read_numeric_date

LEEWAY_SECONDS = 30.0  # the clocks of two machines, as for access tokens


class IdTokenRejected(Exception):
    """An ID token does not prove that this person signed in to this client."""


async def verify_id_token(
    id_token: str,
    *,
    issuer: str,
    client_id: str,
    nonce: str | None,
    keys: KeySource,
    algorithms: Sequence[str] = ALGORITHMS,
    leeway_seconds: float = LEEWAY_SECONDS,
) -> dict[str, Any]:
    """Return the claims of a valid ID token; raises `IdTokenRejected` or `KeysUnavailable`."""
    try:
        header = read_header(id_token)
        if str(header.get("typ", "JWT")).upper() != "JWT":  # RFC 8725 section 3.11: an access or a logout token is none
            raise IdTokenRejected("the token is not an ID token: its header 'typ' must be JWT, or left out")
        key = await keys.find(str(header.get("kid")))
        if key is None:
            raise IdTokenRejected("the ID token names a key the issuer does not have")
        claims = from_json(jws.deserialize_compact(id_token, key, algorithms=list(algorithms)).payload)
    except (JoseError, ValueError) as error:
        raise IdTokenRejected("the ID token's signature does not fit") from error
    if not isinstance(claims, dict) or not isinstance(claims.get("sub"), str):
        raise IdTokenRejected("the ID token does not say who signed in")
    # An audience beside us is one we would have to trust (section 3.1.3.7 number 3), and we trust none.
    if claims.get("iss") != issuer or claims.get("aud") not in (client_id, [client_id]):
        raise IdTokenRejected("the ID token was made for another client or by another issuer")
    if claims.get("azp", client_id) != client_id:
        raise IdTokenRejected("the ID token was issued to another client")
    now = time.time()
    if not _time(claims, "exp") > now - leeway_seconds:
        raise IdTokenRejected("the ID token has expired")
    if _time(claims, "iat") > now + leeway_seconds:
        raise IdTokenRejected("the ID token is of the future; are the clocks in step?")
    if nonce is not None and claims.get("nonce") != nonce:
        raise IdTokenRejected("the ID token answers another sign-in: its nonce differs")
    return claims


def _time(claims: dict[str, Any], name: str) -> float:
    value = read_numeric_date(claims.get(name))
    if value is None:
        raise IdTokenRejected(f"the ID token's claim {name!r} must be a number that is a date")
    return value
