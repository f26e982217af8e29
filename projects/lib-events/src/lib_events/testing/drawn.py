"""What is too much for every run of the tests: they do some of it, others each time.

`EVS_TEST_EVERYTHING=1` does all of it, `EVS_TEST_SEED=7` the same again; a run of the tests begins with its seed, and a
test that fails says it.
"""

import os
import random
from collections.abc import Sequence

import pytest

EVERYTHING = bool(os.environ.get("EVS_TEST_EVERYTHING"))
SEED = pytest.StashKey[int]()  # of the run of the tests


def new_seed() -> int:
    """The seed of a run of the tests: the one that is asked for, or any."""
    return int(os.environ.get("EVS_TEST_SEED") or random.randrange(1_000_000))  # noqa: S311 - no secret


class Draw:
    """Draws for what has a name; other names draw other things."""

    def __init__(self, name: str, seed: int) -> None:
        self._name, self._seed = name, seed
        self._chance = random.Random(f"{name} {seed}")  # noqa: S311 - no secret

    def some[T](self, of: Sequence[T], number: int) -> Sequence[T]:
        """So many of them, in their order; all if everything is asked for."""
        if EVERYTHING or number >= len(of):
            return of
        return [of[index] for index in sorted(self._chance.sample(range(len(of)), number))]

    def __str__(self) -> str:
        return f"{self._name} does what EVS_TEST_SEED={self._seed} draws"
