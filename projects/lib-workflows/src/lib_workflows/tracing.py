"""Runs and steps in the traces of an installation: a follower of the event log sends what has ended to the collector.

Nothing of it is on the way of a run: what is sent was durable before, a crash repeats what follows the place in the
log, and its spans have the ids they had. A collector that is away is waited for.
"""

import logging
from collections.abc import Sequence
from datetime import timedelta

from lib_events.clock import MICROSECOND, Clock, SystemClock, to_micros
from lib_events.database import Database
from lib_events.event import Event
from lib_events.handling.place import Place
from lib_events.handling.subscriptions import Subscriptions
from lib_events.subscription import NotNow, Subscription, subscribe
from lib_events.tracing.traces import CollectorFailed, Traces
from lib_workflows.reading.run_spans import TOLD, span_of

logger = logging.getLogger(__name__)

DURABLE = "evs-traces"
BATCH = 500
AGAIN_SECONDS = 10.0  # the exporter has tried as long before
# What is older is passed over: a collector that is gone for good must not keep the log from being pruned, which keeps
# no event for less than a day more than this.
PATIENCE = timedelta(days=7)
TIMEOUT = timedelta(minutes=2)  # of the exporter's own, ten seconds, there may be several


class RunTracer(Subscriptions):
    """Sends the spans of runs and steps, where this process leads in it, from when it first did."""

    def __init__(self, database: Database, traces: Traces, *, clock: Clock | None = None) -> None:
        self._sender = traces.new_sender()
        self._clock = clock or SystemClock()
        self._traces = traces
        self._is_away = False  # the collector, when it was last asked
        super().__init__(database, [self._subscription()])
        self.name = "run tracer"

    def _subscription(self) -> Subscription:
        @subscribe(*TOLD, durable=DURABLE, batch=BATCH, start="now", timeout=TIMEOUT)
        def send_spans(events: list[Event]) -> None:
            self.tell(events)

        return send_spans

    async def take_place(self) -> None:
        """Begin here, the first time: what happens from now on is told, whoever comes to tell it."""
        await self._database.transact(Place(DURABLE, "now").begin)

    def tell(self, events: Sequence[Event]) -> None:
        """Send what `events` tell of; blocks. Raises `NotNow` where the collector is away."""
        oldest = self._clock.micros() - PATIENCE // MICROSECOND
        spans = [
            span
            for event in events
            if to_micros(event.time) >= oldest and (span := span_of(event, self._traces.keeps)) is not None
        ]
        if not spans:
            return
        try:
            self._sender.send(spans)
        except CollectorFailed as error:
            if not self._is_away:
                logger.warning("%s; traces of runs wait for it, %d days at most", error, PATIENCE.days)
            self._is_away = True
            raise NotNow(seconds=AGAIN_SECONDS) from error
        if self._is_away:
            logger.info("the collector takes spans again")
        self._is_away = False

    def told_to_stop(self) -> float:
        """See `Loop`; a collector that does not answer is not waited for."""
        self._sender.close()
        return super().told_to_stop()
