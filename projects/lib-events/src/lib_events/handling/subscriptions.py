"""Runs subscriptions side by side: a slow one holds up no other."""

import asyncio
from collections.abc import Mapping, Sequence

from lib_events.clock import Clock, SystemClock
from lib_events.database import Database
from lib_events.handling.consumer import DRAIN_SECONDS, Consumer
from lib_events.handling.retries import Sleep
from lib_events.lifecycle import Loop
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
        self._database = database
        self._clock = clock or SystemClock()
        self._sleep = sleep
        self._consumers: dict[str, Consumer] = {}
        self._stop = asyncio.Event()
        for subscription in subscriptions:
            self.add(subscription)

    def add(self, subscription: Subscription) -> None:
        """Run one more subscription, from now on where the others run already."""
        if subscription.durable in self._consumers:
            raise ValueError(f"durable names must differ, got {subscription.durable!r} twice")
        consumer = Consumer(self._database, subscription, clock=self._clock, sleep=self._sleep)
        self._consumers[subscription.durable] = consumer
        if self.running and not self._stop.is_set():
            consumer.start()

    async def remove(self, durable: str) -> None:
        """Let what is under way finish and run the subscription no more; its place in the log is kept."""
        await self._consumers.pop(durable).stop()

    async def run(self) -> None:
        """Run every subscription until stopped; then let what is under way finish."""
        self._stop.clear()
        for consumer in self._consumers.values():
            consumer.start()
        try:
            await self._stop.wait()
        finally:
            await asyncio.gather(*(consumer.stop() for consumer in self._consumers.values()))

    def told_to_stop(self) -> float:
        """Begin nothing new; returns for how many seconds to wait for handlers that run."""
        self._stop.set()
        return DRAIN_SECONDS + 1

    @property
    def positions(self) -> Mapping[str, int]:
        """Up to where each subscription that runs here has handled everything, by its durable name."""
        return {durable: consumer.position for durable, consumer in self._consumers.items()}
