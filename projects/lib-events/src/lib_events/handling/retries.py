"""When a failed event is tried again."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from lib_events.event import Event, EventRejected
from lib_events.subscription import GiveUp, NotNow, Subscription, TryLater

logger = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 30.0

type Sleep = Callable[[float], Awaitable[None]]


class Stopping(Exception):
    """We were told to stop: the event waits for the next start."""


class Retries:
    """How a subscription is tried again: later each time, with jitter, until it has had its attempts."""

    def __init__(self, subscription: Subscription, *, sleep: Sleep, stop: asyncio.Event) -> None:
        self._subscription = subscription
        self._sleep = sleep
        self._stop = stop

    def may_retry(self, error: Exception, attempt: int) -> bool:
        """Whether there is another attempt after the failed one of that number."""
        return attempt < self._subscription.attempts and not isinstance(error, GiveUp | TryLater | EventRejected)

    async def when_ready[*A](self, handle: Callable[[*A], Awaitable[None]], *args: *A) -> None:
        """Call `handle` again for as long as it raises `NotNow`; raises `Stopping`."""
        while True:
            try:
                return await handle(*args)
            except NotNow as not_now:
                seconds = not_now.seconds
            await self._rest(seconds)

    async def wait(self, event: Event, error: Exception, attempt: int) -> None:
        """Wait before the next attempt; raises `Stopping`."""
        longest = min(FIRST_RETRY_SECONDS * 2 ** (attempt - 1), LAST_RETRY_SECONDS)
        seconds = longest * random.uniform(0.5, 1)  # noqa: S311 - it spreads load, it keeps no secret
        logger.warning(
            "subscription %s failed on event %s, again in %.1f s: %s",
            *(self._subscription.durable, event.id, seconds, error),
        )
        await self._rest(seconds)

    async def _rest(self, seconds: float) -> None:
        waits = [asyncio.ensure_future(self._stop.wait()), asyncio.ensure_future(self._sleep(seconds))]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self._stop.is_set():
            raise Stopping
