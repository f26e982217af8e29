"""For tests of services built on the event log: real databases and brokers, bounded waiting."""

import asyncio
import importlib.util
import inspect
import os
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

POLL_SECONDS = 0.02


async def wait_until[T](condition: Callable[[], T | Awaitable[T]], *, timeout: float = 30) -> T:  # noqa: ASYNC109
    """Return the first true value of `condition()`; raises `TimeoutError` naming it after `timeout` seconds.

    They tell what never comes true from a machine that does much else: what is quick is measured, not waited for.
    """
    deadline = asyncio.get_running_loop().time() + timeout
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError(f"not true within {timeout} s: {inspect.getsource(condition).strip()}")
        await asyncio.sleep(POLL_SECONDS)


class FakeClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, micros: int = 1_700_000_000_000_000) -> None:
        self._micros = micros

    def micros(self) -> int:
        """See `Clock.micros`."""
        return self._micros

    def advance(self, delta: timedelta) -> None:
        """Move the clock by `delta`, which may be negative: clocks jump."""
        self._micros += delta // timedelta(microseconds=1)


def missing(what: str) -> None:
    """Skip the test, with a reason, where something real is not installed; in CI that is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must provide {what}")
    pytest.skip(f"needs {what}")


def needs_members(*packages: str) -> None:
    """Skip the test where a member runs without its neighbours; the tests of the whole workspace have them all."""
    absent = [package for package in packages if importlib.util.find_spec(package) is None]
    if absent:
        pytest.skip(f"needs {', '.join(absent)}: run it in the whole workspace")
