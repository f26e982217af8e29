"""At which commits an ordinary test run lets a run die: at some, drawn anew each time and spread over all there are.

`EVS_TEST_CRASHES=1000` lets it die at every one, and `EVS_TEST_CRASHES_SEED=7` at the same ones again; a test that
fails says which they were.
"""

import os
import random
from collections.abc import Iterator

NUMBER = int(os.environ.get("EVS_TEST_CRASHES", "3"))
SEED = int(os.environ.get("EVS_TEST_CRASHES_SEED") or random.randrange(1_000_000))


class CrashPlaces:
    """Draws for one test; tests that differ in a parameter only die at other places."""

    def __init__(self, test: str) -> None:
        self._chance = random.Random(f"{test} {SEED}")

    def of_about(self, commits: int) -> Iterator[int]:
        """Commits to die at, without end: whoever died at none of them has come to the end, and stops asking."""
        step = max(1, commits // NUMBER)
        place = self._chance.randint(1, step)
        while True:
            print(f"dies at commit {place} (EVS_TEST_CRASHES_SEED={SEED})")  # noqa: T201 - pytest shows it on failure
            yield place
            place += step
