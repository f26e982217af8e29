"""How often a step is tried again, and after how long."""

import random
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full jitter: the pause before retry n is up to `initial * factor ** (n - 1)`."""

    initial: timedelta = timedelta(seconds=1)
    factor: float = 2.0
    maximum: timedelta = timedelta(minutes=5)
    jitter: float = 0.5  # the share of a pause that is random: 0 none, 1 all of it

    def __post_init__(self) -> None:
        if self.initial < timedelta(0) or self.maximum < self.initial or self.factor < 1 or not 0 <= self.jitter <= 1:
            raise ValueError(f"backoff must have 0 <= initial <= maximum, factor >= 1, 0 <= jitter <= 1, got {self!r}")

    def pause_seconds(self, attempt: int) -> float:
        """The pause after `attempt` (counted from 1) failed."""
        exponent = min(attempt - 1, 64)
        longest = min(self.initial.total_seconds() * self.factor**exponent, self.maximum.total_seconds())
        return longest * (1 - self.jitter * random.random())  # noqa: S311 - spreads load, protects nothing


DEFAULT_BACKOFF = Backoff()
