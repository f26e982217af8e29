"""An issuer in a test's hands: its key, and tokens made to order."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import ECKey

from lib_auth.access_token import RevocationCheck, TokenVerifier
from lib_auth.principal import Principal

ISSUER = "http://127.0.0.1:8001"
AUDIENCE = "http://127.0.0.1:8002"


def new_key() -> ECKey:
    key = ECKey.generate_key("P-256", private=True)
    key.ensure_kid()
    return key


@dataclass
class Issuer:
    """Signs what a test wants signed."""

    key: ECKey = field(default_factory=new_key)
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

    def token(self, *, header: dict[str, Any] | None = None, key: ECKey | None = None, **changes: Any) -> str:
        signer = key or self.key
        head = {"alg": "ES256", "typ": "at+jwt", "kid": self.key.kid} | (header or {})
        return jws.serialize_compact(head, json.dumps(self.claims(**changes)), signer, algorithms=["ES256"])

    async def find(self, key_id: str) -> ECKey | None:
        return self.key if key_id == self.key.kid else None

    async def is_revoked(self, principal: Principal, token: str) -> bool:
        self.asked += 1
        return self.revoked

    def document(self) -> dict[str, Any]:
        public = self.key.as_dict(private=False)
        return {"keys": [public | {"use": "sig", "alg": "ES256"}]}

    def verifier(self, *, revocations: RevocationCheck | None = None, clock: Callable[[], float] = time.time):
        return TokenVerifier(issuer=ISSUER, audience=AUDIENCE, keys=self, revocations=revocations or self, clock=clock)


@pytest.fixture
def issuer() -> Issuer:
    """A fresh issuer."""
    return Issuer()
