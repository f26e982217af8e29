"""Secrets that must be used again, at rest in a database: encrypted with a key that is not in it."""

import base64
import hashlib
import hmac
import secrets
import unicodedata

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12


class SecretUnreadable(Exception):
    """A secret was sealed with another key, or for another purpose."""


class SealingKey:
    """Seals and unseals; each secret for one purpose, so that a row cannot be put in the place of another."""

    def __init__(self, text: str) -> None:
        key = base64.urlsafe_b64decode(text)
        self._cipher = AESGCM(key)
        self._root = hmac.digest(key, b"what is derived", "sha256")

    @staticmethod
    def generate() -> str:
        """Return a new key in its text form, for a file that only we can read."""
        return base64.urlsafe_b64encode(AESGCM.generate_key(256)).decode()

    @classmethod
    def of_passphrase(cls, passphrase: str, salt: bytes) -> "SealingKey":
        """Return the key that a passphrase means with a salt; it takes a while and 128 MiB, as each guess does."""
        typed = unicodedata.normalize("NFC", passphrase).encode()  # RFC 8265 section 4.2
        derived = hashlib.scrypt(typed, salt=salt, n=2**17, r=8, p=1, maxmem=2**28, dklen=32)
        return cls(base64.urlsafe_b64encode(derived).decode())

    def seal(self, secret: str, *, purpose: str) -> bytes:
        """Return what may be stored."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret.encode(), purpose.encode())

    def derive(self, what: str, *, purpose: str) -> str:
        """Return the secret that follows from `what`: the same each time, and nobody's guess who has not the key."""
        mac = hmac.digest(self._root, f"{purpose}\0{what}".encode(), "sha256")
        return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()

    def unseal(self, sealed: bytes, *, purpose: str) -> str:
        """Return the secret; raises `SecretUnreadable`."""
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], purpose.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise SecretUnreadable(f"the secret of {purpose} was sealed with another key; set a new secret") from error
