"""At which commits a run of the tests lets a run die: at some, drawn anew each time and spread over all there are.

`EVS_TEST_CRASHES=1000` lets it die at every one, as `EVS_TEST_EVERYTHING=1` does.
"""

import itertools
import os
from collections.abc import Iterator

from lib_events.testing.drawn import EVERYTHING, Draw

NUMBER = int(os.environ.get("EVS_TEST_CRASHES", "3"))


class CrashPlaces:
    """Draws for one test; tests that differ in a parameter only die at other places."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw

    def of_about(self, commits: int) -> Iterator[int]:
        """Commits to die at, without end: whoever died at none of them has come to the end, and stops asking."""
        step = 1 if EVERYTHING else max(1, commits // NUMBER)
        (first,) = self._draw.some(range(1, step + 1), 1)
        return itertools.count(first, step)
