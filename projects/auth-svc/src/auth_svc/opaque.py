"""Opaque secrets: 256 random bits handed out once, of which only the SHA-256 digest is kept."""

import base64
import hashlib
import hmac
import os
import secrets
import time

SECRET_BYTES = 32


def new_secret() -> str:
    """Return a fresh secret, safe in URLs, headers and cookies."""
    return secrets.token_urlsafe(SECRET_BYTES)


def digest(secret: str) -> bytes:
    """Return what is kept of `secret`; a slow hash would add nothing to 256 random bits."""
    return hashlib.sha256(secret.encode()).digest()


def matches(secret: str, kept: bytes) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(digest(secret), kept)


def derive(secret: str, salt: bytes) -> str:
    """Return the secret that follows `secret`: nobody can tell it who does not have both."""
    mac = hmac.digest(salt, secret.encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


def new_salt(idempotency_key: str) -> bytes:
    """Return a salt for `derive`, with the digest of the key by which whoever asks for the successor may ask again."""
    return os.urandom(SECRET_BYTES) + (digest(idempotency_key) if idempotency_key else b"")


def idempotency_digest(salt: bytes | None) -> bytes:
    """Return the digest of the key that a salt was made with; empty where there was none."""
    return (salt or b"")[SECRET_BYTES:]


def new_token_id() -> str:
    """Return an id for what is made often, in order of time: an index of them grows in one place.

    It names a token and opens nothing; 80 bits of chance within a millisecond keep it unique.
    """
    moment = time.time_ns() // 1_000_000
    return base64.urlsafe_b64encode(moment.to_bytes(6) + os.urandom(10)).rstrip(b"=").decode()


def new_id() -> str:
    """Return an id nobody can guess, for rows that are named in public: no command takes one for an option."""
    return secrets.token_hex(16)
