"""An ID token of ours that comes back as a hint: who was signed in, however long ago."""

from collections.abc import Mapping
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from pydantic_core import from_json

from auth_svc.protocol.issuer import Issuer
from lib_auth.compact import read_header


def read_id_token_hint(issuer: Issuer, token: str) -> Mapping[str, Any] | None:
    """Return the claims of an ID token this service signed, expired or not; None for anything else."""
    try:
        header = read_header(token)
        key = issuer.keys.known(str(header.get("kid")))
        if key is None or header.get("typ", "JWT") != "JWT":  # an access token is no hint
            return None
        claims = from_json(jws.deserialize_compact(token, key.public, algorithms=[key.algorithm]).payload)
    except (JoseError, ValueError):
        return None
    return claims if isinstance(claims, dict) and claims.get("iss") == issuer.url else None
