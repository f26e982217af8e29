"""An authenticator in software, which can do right and every kind of wrong."""

import base64
import hashlib
import html
import json
import re
import secrets
import struct

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from webauthn.helpers import bytes_to_base64url as text

ISSUER = "http://localhost:8001"  # browsers make no passkeys for an address
PRESENT, VERIFIED, ATTESTED = 0x01, 0x04, 0x40


class SoftwarePasskey:
    """One key pair for one account, as an authenticator keeps it."""

    def __init__(self) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1())
        self.id = secrets.token_bytes(16)
        self.count = 0
        self.user: str | None = None

    def create(self, options, *, origin=ISSUER, flags=PRESENT | VERIFIED, host="localhost"):
        self.user = options["user"]["id"]
        numbers = self.private.public_key().public_numbers()
        x, y = (number.to_bytes(32, "big") for number in (numbers.x, numbers.y))
        public = cbor2.dumps({1: 2, 3: -7, -1: 1, -2: x, -3: y})
        attested = bytes(16) + struct.pack(">H", len(self.id)) + self.id + public
        data = self._data(flags | ATTESTED, host) + attested
        attestation = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        client_data = self._client_data("webauthn.create", options, origin)
        return self._credential(clientDataJSON=client_data, attestationObject=attestation)

    def get(
        self,
        options,
        *,
        origin=ISSUER,
        flags=PRESENT | VERIFIED,
        host="localhost",
        kind="webauthn.get",
        user="",
        **said,
    ):
        self.count += 1
        client_data, data = self._client_data(kind, options, origin, **said), self._data(flags, host)
        signed = data + hashlib.sha256(client_data).digest()
        signature = self.private.sign(signed, ec.ECDSA(hashes.SHA256()))
        handle = (user or self.user).encode()
        handle += b"=" * (-len(handle) % 4)
        answer = {"clientDataJSON": client_data, "authenticatorData": data, "signature": signature}
        return self._credential(**answer, userHandle=base64.urlsafe_b64decode(handle))

    def _data(self, flags, host):
        return hashlib.sha256(host.encode()).digest() + struct.pack(">BI", flags, self.count)

    @staticmethod
    def _client_data(kind, options, origin, **said):
        return json.dumps({"type": kind, "challenge": options["challenge"], "origin": origin} | said).encode()

    def _credential(self, **response):
        written = {name: text(value) for name, value in response.items()}
        return json.dumps({"id": text(self.id), "rawId": text(self.id), "type": "public-key", "response": written})


def options_of(page, action):
    form = page.text.split(f'action="{action}"')[1]
    return json.loads(html.unescape(re.search(r'data-options="([^"]*)"', form)[1]))
