"""The client's side of DPoP (RFC 9449): a key of its own, and proofs that it holds it, one for each request."""

import json
import secrets
import time
from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import urlsplit

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from lib_auth.dpop import PROOF_TYPE, hash_of

ALGORITHM = "ES256"


class ProofKey:
    """A key pair that tokens are bound to; whoever has the tokens alone can do nothing with them."""

    def __init__(self, key: ECKey) -> None:
        self._key = key

    @classmethod
    def generate(cls) -> Self:
        """Make a new one."""
        return cls(ECKey.generate_key("P-256", private=True))

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Self:
        """Read what `to_dict` made; raises `ValueError`."""
        try:
            key = ECKey.import_key(dict(kept))
        except (JoseError, KeyError, TypeError) as error:
            raise ValueError("a proof key must be a JWK of kind EC") from error
        if not key.is_private:
            raise ValueError("a proof key must have its private half")
        return cls(key)

    def to_dict(self) -> dict[str, Any]:
        """Return the private JWK, for a token store: a secret as its tokens are."""
        return dict(self._key.as_dict(private=True))

    @property
    def thumbprint(self) -> str:
        """What tokens name the key by (RFC 7638)."""
        return self._key.thumbprint()

    def proof(self, method: str, url: str, *, access_token: str | None = None, nonce: str | None = None) -> str:
        """Return a proof for one request (section 4.2); `access_token` is the one it carries, `nonce` the server's."""
        claims: dict[str, Any] = {
            "jti": secrets.token_urlsafe(16),
            "htm": method,
            "htu": urlsplit(url)._replace(query="", fragment="").geturl(),
            "iat": int(time.time()),
        }
        if access_token is not None:
            claims["ath"] = hash_of(access_token)
        if nonce is not None:
            claims["nonce"] = nonce
        header = {"typ": PROOF_TYPE, "alg": ALGORITHM, "jwk": self._key.as_dict(private=False)}
        return jws.serialize_compact(header, json.dumps(claims), self._key, algorithms=[ALGORITHM])

    def headers(self, method: str, url: str, access_token: str) -> dict[str, str]:
        """Return the headers that send a bound token with one request (section 7.1)."""
        return {"authorization": f"DPoP {access_token}", "dpop": self.proof(method, url, access_token=access_token)}
