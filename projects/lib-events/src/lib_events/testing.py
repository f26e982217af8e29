"""What tests of every member share: waiting with a bound, free ports, real databases, a real broker."""

import asyncio
import time
from collections.abc import Awaitable, Callable

WAIT_SECONDS = 10.0


async def wait_until(
    condition: Callable[[], object] | Callable[[], Awaitable[object]],
    timeout: float = WAIT_SECONDS,  # noqa: ASYNC109 - a bound, not a cancellation
) -> None:
    """Wait until `condition` is true; fails after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        found = condition()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"condition must become true within {timeout} s, and did not: {condition}")
        await asyncio.sleep(0.005)
