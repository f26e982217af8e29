"""Sealed bytes: encrypted and authenticated, readable again only with the key and for the same purpose."""

import base64
import hashlib
import hmac
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12


def derived_key(secret: str, purpose: str) -> bytes:
    """A 256-bit key for one purpose from a secret that has at least as much entropy."""
    return hmac.digest(secret.encode(), purpose.encode(), hashlib.sha256)


def seal(key: bytes, plain: bytes, *, purpose: str) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, purpose.encode())


def unseal(key: bytes, sealed: bytes, *, purpose: str) -> bytes | None:
    """What was sealed, or None for bytes that were not sealed with this key for this purpose."""
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], purpose.encode())
    except (InvalidTag, ValueError):
        return None


def to_text(sealed: bytes) -> str:
    return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()


def from_text(text: str) -> bytes:
    """The bytes of `to_text`; of anything else, bytes that cannot be unsealed."""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return b""
