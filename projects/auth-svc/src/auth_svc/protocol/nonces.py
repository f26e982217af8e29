"""The nonces that DPoP proofs must repeat (RFC 9449 section 8): of this minute or the last, and nobody stores them."""

import base64
import hashlib
import hmac
import time
from collections.abc import Callable

WINDOW_SECONDS = 60
MAC_BYTES = 18


class Nonces:
    """Makes and recognises nonces; every process with the same secret agrees."""

    def __init__(self, secret: str, *, clock: Callable[[], float] = time.time) -> None:
        self._key = hmac.digest(secret.encode(), b"evs-auth dpop nonce", hashlib.sha256)
        self._clock = clock

    def current(self) -> str:
        """The nonce to use from now on."""
        return self._of(self._window())

    def is_good(self, nonce: str) -> bool:
        """Whether `nonce` was given out within the last two windows."""
        window = self._window()
        return any(hmac.compare_digest(nonce.encode(), self._of(each).encode()) for each in (window, window - 1))

    def _window(self) -> int:
        return int(self._clock()) // WINDOW_SECONDS

    def _of(self, window: int) -> str:
        mac = hmac.digest(self._key, str(window).encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(mac[:MAC_BYTES]).decode()
