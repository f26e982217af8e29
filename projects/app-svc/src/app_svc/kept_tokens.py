"""A few access tokens in memory, each handed out again to whoever may have exactly it, as long as it is good.

A token is kept for the delegation, the service and the scope it was asked for, so no run gets what another one was
given for more or for somewhere else. It is handed out for the first half of its life, and only while nothing was heard
that refuses it: where nobody can say, a new one is asked for.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from lib_auth.access_token import RevocationsUnknown, TokenRejected, TokenVerifier
from lib_auth.jwks import KeysUnavailable
from lib_auth.tokens import TokenSet

LIMIT = 1_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a token is for; two are the same where all of it is."""

    delegation: str
    resource: str
    scope: frozenset[str]


@dataclass(slots=True)
class _Kept:
    """A token, once there is one; who comes meanwhile waits for it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    tokens: TokenSet | None = field(default=None, repr=False)
    good_until: float = 0.0  # by a clock that nobody sets


class Anywhere:
    """Every audience: the tokens are for others, and only whether they were revoked is asked."""

    def __contains__(self, audience: object) -> bool:
        return True


class KeptTokens:
    """The tokens that one process keeps; the oldest goes when there are too many."""

    def __init__(
        self, verifier: TokenVerifier, *, limit: int = LIMIT, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._verifier = verifier
        self._limit = limit
        self._clock = clock
        self._kept: dict[Wanted, _Kept] = {}

    async def get(self, wanted: Wanted, ask: Callable[[], Awaitable[TokenSet]]) -> str:
        """Return a token that is good; of several who want the same at once one asks. Raises what `ask` raises."""
        kept = self._of(wanted)
        async with kept.lock:
            if kept.tokens is None or not await self._is_good(kept):
                kept.tokens = None  # what is no good is gone, whatever becomes of the question
                asked_at = self._clock()
                kept.tokens = await ask()
                kept.good_until = asked_at + kept.tokens.seconds_left / 2
                self._kept.pop(wanted, None)  # it is the youngest now
                self._keep(wanted, kept)
            return kept.tokens.access_token

    def _of(self, wanted: Wanted) -> _Kept:
        kept = self._kept.get(wanted)
        return self._keep(wanted, _Kept()) if kept is None else kept

    def _keep(self, wanted: Wanted, kept: _Kept) -> _Kept:
        while len(self._kept) >= self._limit:
            self._kept.pop(next(iter(self._kept)))  # dictionaries keep order: the oldest goes
        self._kept[wanted] = kept
        return kept

    async def _is_good(self, kept: _Kept) -> bool:
        """Whether a step can still do something with it, and nothing was heard that refuses it."""
        if kept.tokens is None or self._clock() >= kept.good_until:
            return False
        try:
            await self._verifier.verify(kept.tokens.access_token)
        except (TokenRejected, RevocationsUnknown, KeysUnavailable):
            return False
        return True
