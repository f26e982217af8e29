"""Handles again what somebody redrives of a subscription's dead letters, and what its handler wanted later.

Both go on beside the events of the log.
"""

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from typing import Any

from sqlalchemy import Row

from lib_events.clock import Clock
from lib_events.database import Connection, Database, is_database_failure
from lib_events.event import Event
from lib_events.handling.dead_letters import REDRIVE_TOPIC, bury_again, redriven, seconds_to_next, settle
from lib_events.handling.retries import Retries, Sleep, Stopping
from lib_events.lifecycle import first_of
from lib_events.subscription import Subscription

POLL_SECONDS = 30.0  # only for what a lost notification would have told


class Redriver:
    """Redrives for one subscription."""

    def __init__(
        self,
        database: Database,
        subscription: Subscription,
        threads: ThreadPoolExecutor,
        retries: Retries,
        *,
        clock: Clock,
        sleep: Sleep,
        stop: asyncio.Event,
    ) -> None:
        self._database = database
        self._subscription = subscription
        self._threads = threads
        self._retries = retries
        self._clock = clock
        self._sleep = sleep
        self._stop = stop

    async def run(self) -> None:
        """Handle what is redriven until told to stop."""
        asked = asyncio.Event()
        unsubscribe = self._database.on_notify(REDRIVE_TOPIC, asked.set)
        try:
            with suppress(Stopping):
                while not self._stop.is_set():
                    asked.clear()
                    durable = self._subscription.durable
                    for letter in await self._database.read(redriven, durable, self._clock.micros()):
                        await self._handle(letter)
                        asked.set()  # there may be more of them
                    seconds = await self._database.read(seconds_to_next, durable, self._clock.micros())
                    await self._wait(asked, seconds)
        finally:
            unsubscribe()

    async def _wait(self, asked: asyncio.Event, seconds: float) -> None:
        """Wait until something else may be due, or we are told to stop."""
        due = None if math.isinf(seconds) else asyncio.create_task(self._sleep_and_set(asked, seconds))
        try:
            await first_of(asked, self._stop, seconds=POLL_SECONDS)
        finally:
            if due is not None:
                due.cancel()

    async def _sleep_and_set(self, event: asyncio.Event, seconds: float) -> None:
        await self._sleep(seconds)
        event.set()

    async def _handle(self, letter: Row[Any]) -> None:
        event = Event.from_json(letter.body)
        for attempt in count(1):
            try:
                tried = letter.deferred_attempts + attempt
                await self._retries.when_ready(self._attempt, letter.id, event, tried)
            except Stopping:
                raise
            except Exception as error:
                if is_database_failure(error):
                    raise
                if self._retries.may_retry(error, attempt):
                    await self._retries.wait(event, error, attempt)
                    continue
                await self._database.transact(bury_again, letter.id, error, attempt, self._clock.micros())
            return

    async def _attempt(self, letter_id: int, event: Event, attempt: int) -> None:
        if self._subscription.kind == "transaction":
            await self._database.transact(self._handle_in, letter_id, event, attempt)
        else:
            await self._subscription.handle([event], self._threads, attempt=attempt)
            await self._database.transact(settle, letter_id)

    def _handle_in(self, connection: Connection, letter_id: int, event: Event, attempt: int) -> None:
        if settle(connection, letter_id):
            self._subscription.handle_in(connection, [event], attempt=attempt)
