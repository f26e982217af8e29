"""Passwords: Argon2id at the OWASP parameters, in a bounded pool that refuses rather than queues without end.

A hash holds 19 MiB and a core for about 22 ms, so an unbounded queue would be a way to stop the service. Hashes of
people who come from elsewhere are checked in the same pool, and renewed as soon as a password fits.
"""

import asyncio
import os
import unicodedata
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher, Type

from auth_svc.people import password_hashes
from auth_svc.people.password_hashes import ARGON2ID, HashRejected
from auth_svc.people.password_policy import LONGEST, SHORTEST, PasswordPolicy, PasswordRejected

__all__ = ["LONGEST", "SHORTEST", "PasswordRejected", "Passwords", "PasswordsBusy"]

MEMORY_KIB = 19_456
TIME_COST = 2
PARALLELISM = 1
QUEUE_PER_THREAD = 16
RETRY_AFTER_SECONDS = 2
# What an unknown user's password is compared with: nobody has it, and it costs what every other costs.
DUMMY_HASH = f"$argon2id$v=19$m={MEMORY_KIB},t={TIME_COST},p={PARALLELISM}${'A' * 22}${'A' * 43}"


class PasswordsBusy(Exception):
    """More sign-ins are under way than this machine can hash; ask again in `retry_after` seconds."""

    retry_after = RETRY_AFTER_SECONDS


class Passwords:
    """Hashes and verifies in as many threads as there are cores (Argon2 runs without the GIL)."""

    def __init__(
        self,
        *,
        threads: int | None = None,
        queue_per_thread: int = QUEUE_PER_THREAD,
        policy: PasswordPolicy | None = None,
    ) -> None:
        self._policy = policy or PasswordPolicy()
        self._hasher = PasswordHasher(
            time_cost=TIME_COST, memory_cost=MEMORY_KIB, parallelism=PARALLELISM, type=Type.ID
        )
        workers = threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="password")
        self._limit = workers * (1 + queue_per_thread)
        self._pending = 0

    async def verify(self, password: str, kept: str | None) -> bool:
        """Whether `password` is the one behind `kept`; without one, work as long as if there were."""
        return await self._run(self._verify, password, kept)

    async def hash(self, password: str, *, context: Collection[str] = ()) -> str:
        """Return the hash to keep; `context` are the person's names; raises `PasswordRejected` by the policy."""
        return await self._run(self._checked_hash, _normalised(password), context)

    async def rehash(self, password: str) -> str:
        """Return a fresh hash of a password that is in use, whatever today's policy says of it."""
        return await self._run(self._hasher.hash, _normalised(password))

    def hash_now(self, password: str, *, context: Collection[str] = ()) -> str:
        """Return the hash to keep, blocking: for start-up and offline commands only."""
        return self._checked_hash(_normalised(password), context)

    def needs_rehash(self, kept: str) -> bool:
        """Whether `kept` was made elsewhere, or with weaker parameters than today's."""
        return not is_todays(kept)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _run[*A, R](self, function: Callable[[*A], R], *args: *A) -> R:
        if self._pending >= self._limit:
            raise PasswordsBusy
        self._pending += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)
        finally:
            self._pending -= 1

    def _checked_hash(self, password: str, context: Collection[str]) -> str:
        self._policy.check(password, context)
        return self._hasher.hash(password)

    def _verify(self, password: str, kept: str | None) -> bool:
        """Elsewhere nothing is normalised, so what was typed counts, too; all are compared, whichever fits."""
        candidates = dict.fromkeys((_normalised(password), password))
        fitting = [self._matches(candidate, kept or DUMMY_HASH) for candidate in candidates]
        return any(fitting) and kept is not None

    @staticmethod
    def _matches(password: str, kept: str) -> bool:
        try:
            return password_hashes.read(kept).matches(password)
        except HashRejected:
            return False


def is_todays(kept: str) -> bool:
    """Whether a hash is as one that is made here today."""
    return kept.startswith(todays_parameters())


def todays_parameters() -> str:
    """What every hash that is made here today begins with."""
    return f"{ARGON2ID}v=19$m={MEMORY_KIB},t={TIME_COST},p={PARALLELISM}$"


def _normalised(password: str) -> str:
    """RFC 8265 section 4.2: keyboards that compose letters differently type the same password."""
    return unicodedata.normalize("NFC", password)
