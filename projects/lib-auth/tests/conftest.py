"""An issuer in a test's hands: its key, and tokens made to order."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import ECKey, RSAKey

from lib_auth.access_token import RevocationCheck, TokenVerifier
from lib_auth.jwks import ALGORITHMS
from lib_auth.principal import Principal

ISSUER = "http://127.0.0.1:8001"
AUDIENCE = "http://127.0.0.1:8002"


def new_key() -> ECKey:
    key = ECKey.generate_key("P-256", private=True)
    key.ensure_kid()
    return key


def new_rsa_key() -> RSAKey:
    key = RSAKey.generate_key(2_048, private=True)
    key.ensure_kid()
    return key


@dataclass
class Issuer:
    """Signs what a test wants signed."""

    key: ECKey | RSAKey = field(default_factory=new_key)
    revoked: bool = False
    asked: int = 0

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "ada",
            "client_id": "evs-gui",
            "jti": "token-1",
            "iat": now,
            "exp": now + 300,
            "scope": "workflows:read workflows:run",
            "roles": ["member"],
            "sid": "session-1",
            "family": "family-1",
            "preferred_username": "ada",
        }
        return {name: value for name, value in (claims | changes).items() if value is not ...}

    @property
    def algorithm(self) -> str:
        return "RS256" if isinstance(self.key, RSAKey) else "ES256"

    def token(self, *, header: dict[str, Any] | None = None, key: ECKey | RSAKey | None = None, **changes: Any) -> str:
        signer = key or self.key
        head = {"alg": self.algorithm, "typ": "at+jwt", "kid": self.key.kid} | (header or {})
        return jws.serialize_compact(head, json.dumps(self.claims(**changes)), signer, algorithms=[head["alg"]])

    async def find(self, key_id: str) -> ECKey | RSAKey | None:
        return self.key if key_id == self.key.kid else None

    async def is_revoked(self, principal: Principal, token: str) -> bool:
        self.asked += 1
        return self.revoked

    def document(self) -> dict[str, Any]:
        public = self.key.as_dict(private=False)
        return {"keys": [public | {"use": "sig", "alg": self.algorithm}]}

    def verifier(
        self,
        *,
        revocations: RevocationCheck | None = None,
        clock: Callable[[], float] = time.time,
        algorithms: Sequence[str] = ALGORITHMS,
    ) -> TokenVerifier:
        checks = revocations or self
        return TokenVerifier(
            issuer=ISSUER, audience=AUDIENCE, keys=self, revocations=checks, clock=clock, algorithms=algorithms
        )


@pytest.fixture
def issuer() -> Issuer:
    """A fresh issuer."""
    return Issuer()


@pytest.fixture
def rsa_issuer() -> Issuer:
    """A fresh issuer that signs with RS256."""
    return Issuer(new_rsa_key())
