"""How often a step is tried again, and after how long."""

import random
from dataclasses import dataclass
from datetime import timedelta

from lib_events.chance import current_seed
from lib_workflows.errors import DefinitionError

LONGEST = timedelta(days=36_500)
STEEPEST = 1_000.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with jitter: the pause before retry n is at most `initial * factor ** (n - 1)` and `maximum`,
    and shorter by up to the share `jitter` of it, so that what failed together is not tried again together.
    """

    initial: timedelta = timedelta(seconds=1)
    factor: float = 2.0
    maximum: timedelta = timedelta(minutes=5)
    jitter: float = 0.5  # the share of a pause that is random: 0 none, 1 all of it

    def __post_init__(self) -> None:
        durations_fit = timedelta(0) <= self.initial <= self.maximum <= LONGEST
        if not durations_fit or not 1 <= self.factor <= STEEPEST or not 0 <= self.jitter <= 1:
            raise DefinitionError(
                f"backoff must have 0 <= initial <= maximum <= 100 years, 1 <= factor <= {STEEPEST:.0f} and "
                f"0 <= jitter <= 1, got {self!r}"
            )

    def pause_seconds(self, attempt: int, what: str = "") -> float:
        """The pause after `attempt` (counted from 1) of `what` failed."""
        seed = current_seed.get()
        chance = random.random() if seed is None else seed.share(f"pause {what} {attempt}")  # noqa: S311 - spreads load
        exponent = min(attempt - 1, 64)  # with the steepest factor still a number
        longest = min(self.initial.total_seconds() * self.factor**exponent, self.maximum.total_seconds())
        return longest * (1 - self.jitter * chance)


DEFAULT_BACKOFF = Backoff()
