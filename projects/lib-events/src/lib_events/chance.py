"""What is left to chance, ids and pauses; a test may seed it, for what it does itself and for nothing beside it."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar


class Seed:
    """Chance that is the same each time: whatever is drawn for one thing does not depend on what others draw."""

    __slots__ = ("_drawn", "_key")

    def __init__(self, seed: int | str) -> None:
        self._key = hashlib.blake2b(str(seed).encode()).digest()
        self._drawn: dict[str, int] = {}

    def draw(self, what: str) -> bytes:
        """Sixteen new bytes for `what`: the first time, the second, and so on."""
        number = self._drawn[what] = self._drawn.get(what, 0) + 1
        return self._bytes(f"{what}\0{number}")

    def share(self, what: str) -> float:
        """A number in [0, 1) for `what`, always the same."""
        return (int.from_bytes(self._bytes(what)[:7]) >> 3) / (1 << 53)

    def _bytes(self, what: str) -> bytes:
        return hashlib.blake2b(what.encode(), key=self._key, digest_size=16).digest()


# In a context, not in the process: tests side by side, and those that come after, know nothing of it.
current_seed: ContextVar[Seed | None] = ContextVar("current_seed", default=None)


@contextmanager
def seeded(seed: Seed | None) -> Iterator[None]:
    """Draw from `seed` within the block, and in the tasks and callbacks that it begins; None changes nothing."""
    if seed is None:
        yield
        return
    token = current_seed.set(seed)
    try:
        yield
    finally:
        with suppress(ValueError):  # a fixture may end in another context than it began in, which has none of it
            current_seed.reset(token)
