"""Runs subscriptions side by side: a slow one holds up no other."""

import asyncio
from collections.abc import Mapping, Sequence

from lib_events.clock import Clock, SystemClock
from lib_events.consumer import DRAIN_SECONDS, Consumer
from lib_events.database import Database
from lib_events.lifecycle import Loop
from lib_events.retries import Sleep
from lib_events.subscription import Subscription


class Subscriptions(Loop):
    """Of all processes on a database one runs each subscription, and goes on where the last one stood."""

    def __init__(
        self,
        database: Database,
        subscriptions: Sequence[Subscription],
        *,
        clock: Clock | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        super().__init__(name="subscriptions")
        durables = [subscription.durable for subscription in subscriptions]
        if len(set(durables)) != len(durables):
            raise ValueError(f"durable names must differ, got {sorted(durables)}")
        self._consumers = [
            Consumer(database, subscription, clock=clock or SystemClock(), sleep=sleep)
            for subscription in subscriptions
        ]
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Run every subscription until stopped; then let what is under way finish."""
        self._stop.clear()
        for consumer in self._consumers:
            consumer.start()
        try:
            await self._stop.wait()
        finally:
            await asyncio.gather(*(consumer.stop() for consumer in self._consumers))

    def told_to_stop(self) -> float:
        """Begin nothing new; returns for how many seconds to wait for handlers that run."""
        self._stop.set()
        return DRAIN_SECONDS + 1

    @property
    def positions(self) -> Mapping[str, int]:
        """Up to where each subscription that runs here has handled everything, by its durable name."""
        return {consumer.durable: consumer.position for consumer in self._consumers}
