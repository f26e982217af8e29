"""Live progress of runs: told to who watches, kept nowhere."""

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from lib_events.clock import SystemClock, to_datetime
from lib_events.event import Event, EventType

type Hear = Callable[[Event], None]


class RunProgressed(BaseModel):
    """How far a run is; `detail` is the heartbeat of one of its steps."""

    run: str
    fraction: float | None
    text: str
    detail: dict[str, Any] | None = None


RUN_PROGRESSED = EventType("evs.run.progressed", RunProgressed)


class Progress:
    """Passes on what runs of this process report."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._watchers: dict[str, list[Hear]] = {}

    def report(self, run_id: str, fraction: float | None, text: str, detail: Any = None) -> None:
        """Tell who watches the run; may be called from a step's thread."""
        if run_id in self._watchers:
            self._loop.call_soon_threadsafe(self._tell, run_id, fraction, text, detail)

    def watch(self, run_id: str, hear: Hear) -> Callable[[], None]:
        """Call `hear` with each progress event of the run; returns the way to stop."""
        self._watchers.setdefault(run_id, []).append(hear)

        def stop() -> None:
            watchers = self._watchers.get(run_id, [])
            if hear in watchers:
                watchers.remove(hear)
            if not watchers:
                self._watchers.pop(run_id, None)

        return stop

    def _tell(self, run_id: str, fraction: float | None, text: str, detail: Any) -> None:
        event = Event(
            id=str(uuid.uuid4()),
            source=self._source,
            type=RUN_PROGRESSED.name,
            time=to_datetime(SystemClock().micros()),
            subject=run_id,
            data={"run": run_id, "fraction": fraction, "text": text, "detail": detail},
        )
        for hear in tuple(self._watchers.get(run_id, ())):
            hear(event)
