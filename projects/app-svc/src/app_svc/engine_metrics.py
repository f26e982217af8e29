"""What Prometheus is told of workflows: what ends here, is in memory, waits in queues and since when, and gathers."""

import time
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from lib_events.clock import to_micros
from lib_events.database import DatabaseError
from lib_workflows import Engine
from lib_workflows.events.gathering import gathering_events
from lib_workflows.queueing.queues import QueueView

MOST_QUEUES = 200  # each has four series
GOOD_SECONDS = 5.0  # anybody may ask, and counting looks at every run that has not ended


class EngineMetrics(Collector):
    """The figures of an engine; those of queues and of events are of the whole database, as of the last look."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._queues: Sequence[QueueView] = ()
        self._gathering: Mapping[str, int] = {}
        self._good_until = 0.0

    async def look(self) -> None:
        """Find out what waits; while the database cannot be asked, nothing is told of that."""
        now = time.monotonic()
        if now < self._good_until:
            return
        self._good_until = now + GOOD_SECONDS
        try:
            self._queues = (await self._engine.queues.list(limit=MOST_QUEUES)).items
            self._gathering = await self._engine.database.read(gathering_events)
        except DatabaseError:
            self._queues, self._gathering = (), {}

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        ended = CounterMetricFamily(
            "evs_runs_ended", "Runs that ended, or were parked, in this process.", labels=("workflow", "status")
        )
        for (workflow, status), count in sorted(self._engine.runs_ended.items()):
            ended.add_metric((workflow, status), count)
        yield ended
        yield GaugeMetricFamily("evs_runs_in_memory", "Runs in this process.", value=self._engine.runs_in_memory)
        yield from self._of_queues()
        gathering = GaugeMetricFamily(
            "evs_gathering_events", "Events that wait for the others of their batch.", labels=("workflow",)
        )
        for workflow, count in sorted(self._gathering.items()):
            gathering.add_metric((workflow,), count)
        yield gathering

    def _of_queues(self) -> Iterator[Metric]:
        held = GaugeMetricFamily("evs_queue_runs", "Unfinished runs of each queue.", labels=("queue", "state"))
        waits = GaugeMetricFamily(
            "evs_queue_wait_seconds", "For how long the run that is next has been due.", labels=("queue",)
        )
        paused = GaugeMetricFamily("evs_queue_paused", "Whether a queue is paused.", labels=("queue",))
        now = self._engine.clock.micros()
        for queue in self._queues:
            counts = (("due", queue.due), ("later", queue.queued - queue.due), ("under_way", queue.under_way))
            for state, count in counts:
                held.add_metric((queue.name, state), count)
            waited = 0.0 if queue.due_since is None else (now - to_micros(queue.due_since)) / 1e6
            waits.add_metric((queue.name,), max(0.0, waited))
            paused.add_metric((queue.name,), queue.paused)
        yield from (held, waits, paused)
