"""Faults for tests of workflows: steps that fail as told, and crashes by lot that are the same on every run."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lib_workflows.authoring.step import Step


@contextmanager
def failing(
    step: Step[*tuple[Any, ...], Any], *errors: Exception | None, after: bool = False
) -> Iterator[list[tuple[Any, ...]]]:
    """Let the next calls of `step` raise `errors`, one each (None: it runs); later calls run. Gives the arguments.

    With `after` the step has its effect first, and only its answer is lost. Raises `ValueError` for a step with
    `process=True`, which runs elsewhere.
    """
    if step.options.process:
        raise ValueError(f"failing must get a step that runs in this process, got {step!r} with process=True")
    function, waiting = step.function, iter(errors)
    calls: list[tuple[Any, ...]] = []

    def begin(args: tuple[Any, ...]) -> Exception | None:
        calls.append(args)
        error = next(waiting, None)
        if error is not None and not after:
            raise error
        return error

    def end(error: Exception | None, result: Any) -> Any:
        if error is not None:
            raise error
        return result

    async def call(*args: Any) -> Any:
        return end(begin(args), await function(*args))

    def call_in_thread(*args: Any) -> Any:
        return end(begin(args), function(*args))

    step.function = call if step.is_async else call_in_thread
    try:
        yield calls
    finally:
        step.function = function


def crashes(seed: int, *, lives: int = 5, within: int = 20) -> list[int]:
    """For `survive(crash_at=…)`: at which commit each of several lives crashes; the same seed gives the same."""
    chance = random.Random(seed)  # noqa: S311 - a test's dice
    return [chance.randint(1, within) for _ in range(lives)]
