"""The key that signs tokens: private in a 0600 file of DATA, public in the database and at the JWKS endpoint."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from joserfc import jws
from joserfc.jwk import ECKey
from pydantic_core import to_json
from sqlalchemy import insert, select

from auth_svc.tables import signing_keys
from lib_auth.jwks import ALGORITHM
from lib_events.database import Connection
from lib_events.secret_file import create_secret

FILE_NAME = "signing-key.pem"
CURVE = "P-256"


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """The active private key and every public key that tokens in use may name."""

    active: ECKey = field(repr=False)
    public: Mapping[str, ECKey]

    @property
    def key_id(self) -> str:
        """The `kid` of the active key."""
        return str(self.active.kid)

    def sign(self, claims: Mapping[str, Any], *, token_type: str) -> str:
        """Return a compact JWS that names its key."""
        header = {"alg": ALGORITHM, "typ": token_type, "kid": self.key_id}
        return jws.serialize_compact(header, to_json(claims), self.active, algorithms=[ALGORITHM])

    async def find(self, key_id: str) -> ECKey | None:
        """The service's own `KeySource`."""
        return self.public.get(key_id)

    def document(self) -> dict[str, Any]:
        """The JWK set (RFC 7517)."""
        return {
            "keys": [
                key.as_dict(private=False) | {"kid": key_id, "use": "sig", "alg": ALGORITHM}
                for key_id, key in self.public.items()
            ]
        }


def load_private_key(folder: Path) -> ECKey:
    """Read the private key, making it at the first start."""
    pem = create_secret(folder / FILE_NAME, _make_key)
    key = ECKey.import_key(pem)
    key.ensure_kid()  # the RFC 7638 thumbprint
    return key


def publish_key(connection: Connection, active: ECKey, now: int) -> SigningKeys:
    """Make sure the database knows the active key's public half, and return all keys in use."""
    known = connection.scalar(select(signing_keys.c.id).where(signing_keys.c.id == active.kid))
    if known is None:
        public = json.dumps(active.as_dict(private=False))
        connection.execute(insert(signing_keys).values(id=active.kid, public_key=public, created_at=now))
    rows = connection.execute(select(signing_keys).where(signing_keys.c.retired_at.is_(None)))
    return SigningKeys(active, {row.id: ECKey.import_key(json.loads(row.public_key)) for row in rows})


def _make_key() -> str:
    return ECKey.generate_key(CURVE, private=True).as_pem(private=True).decode()
