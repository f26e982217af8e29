"""One attempt of a step: where it runs, how long it may, and its end, told exactly once."""

import asyncio
import logging
from collections.abc import Callable
from contextvars import copy_context
from datetime import timedelta
from typing import Any, Literal

from lib_workflows.authoring.step import StepRun
from lib_workflows.errors import Limit, NonRetryable, StepTimeout
from lib_workflows.run_logs import place_in_run
from lib_workflows.steps.places import AnyStep, StepPlaces, Work
from lib_workflows.values.failure import is_declared

logger = logging.getLogger(__name__)

STUBBORN_SECONDS = 10.0  # whoever goes on for so long after it was stopped is told of
LAST_LIMITS = frozenset(("start", "total"))  # there is no further attempt after these


class Attempt:
    """Runs a step once and tells how it ended, exactly once.

    A thread cannot be ended from outside. A synchronous attempt that is told to stop is reported at once and
    lingers; one that ran out of time is reported when its thread has ended, so that its retry never runs beside
    it, unless there is no retry (`is_last`).
    """

    __slots__ = (
        "_heard_at", "_loop", "_on_end", "_stopping", "_timeout", "_timers", "_work",
        "args", "is_last", "reported", "run", "step", "total_seconds",
    )  # fmt: skip

    def __init__(
        self,
        step: AnyStep,
        args: tuple[Any, ...],
        run: StepRun,
        *,
        is_last: bool,
        total_seconds: float | None,
        on_end: Callable[["Attempt", Any, BaseException | None], None],
    ) -> None:
        self.step = step
        self.args = args
        self.run = run
        self.is_last = is_last
        self.total_seconds = total_seconds  # what is left of the total timeout
        self.reported = False
        self._on_end = on_end
        self._work: Work | None = None
        self._timers: dict[Limit | Literal["stop"], asyncio.TimerHandle] = {}
        self._timeout: StepTimeout | None = None
        self._stopping = False
        self._loop = asyncio.get_running_loop()
        self._heard_at = 0.0

    @property
    def lingers(self) -> bool:
        """Whether its function is still running though its end has been told."""
        return self.reported and self._work is not None and not self._work.future.done()

    @property
    def future(self) -> asyncio.Future[Any] | None:
        """The function's end."""
        return self._work.future if self._work is not None else None

    def start(self, places: StepPlaces) -> None:
        """Begin; an async step that never waits has ended when this returns."""
        options = self.step.options
        limited = (options.timeout or options.start_timeout or options.heartbeat_timeout) is not None
        on_begun = self._begun if limited and not self.step.is_async else None
        try:
            self._work = places.begin(self.step, self.args, self.run, on_begun)
        except Exception as error:  # noqa: BLE001 - wrong arguments are the step's failure
            self._report(None, error)
            return
        future = self._work.future
        if future.done():
            self._ended(future)
            return
        if self.total_seconds is not None:
            self._arm("total", self.total_seconds, options.total_timeout)
        if self.step.is_async:
            self._begun()
        elif options.start_timeout is not None:
            seconds = options.start_timeout.total_seconds()
            self._timers["start"] = self._loop.call_later(seconds, self._not_begun, seconds)
        future.add_done_callback(self._ended)

    def may_be_retried(self, error: BaseException) -> bool:
        """Whether another attempt may mend `error`."""
        if self.is_last or isinstance(error, NonRetryable) or is_declared(error, self.step.options.errors):
            return False
        return not (isinstance(error, StepTimeout) and error.limit in LAST_LIMITS)

    def hear(self) -> None:
        """It sent a heartbeat; called from any thread."""
        self._heard_at = self._loop.time()

    def stop(self) -> None:
        """Ask the function to stop; reported with `asyncio.CancelledError` unless it ends otherwise."""
        self._stopping = True
        self.run.cancel()
        if self._work is not None and self._work.end is not None:
            self._end_work(self._work.end)
            return
        if self._work is not None:
            self._work.withdraw()
        self._report(None, asyncio.CancelledError())

    # Limits

    def _begun(self) -> None:
        """A thread or process has taken it up, or it runs on the loop."""
        if self.reported:
            return
        options = self.step.options
        started = self._timers.pop("start", None)
        if started is not None:
            started.cancel()
        if options.timeout is not None:
            self._arm("attempt", options.timeout.total_seconds(), options.timeout)
        if options.heartbeat_timeout is not None:
            self.hear()
            self._watch_heart(options.heartbeat_timeout)

    def _arm(self, limit: Limit, seconds: float, told: timedelta | None) -> None:
        self._timers[limit] = self._loop.call_later(seconds, self._time_out, limit, told)

    def _watch_heart(self, longest: timedelta) -> None:
        left = self._heard_at + longest.total_seconds() - self._loop.time()
        if left > 0:
            self._timers["heartbeat"] = self._loop.call_later(left, self._watch_heart, longest)
        else:
            self._time_out("heartbeat", longest)

    def _not_begun(self, seconds: float) -> None:
        assert self._work is not None  # noqa: S101 - its timers begin with it
        if self._work.withdraw():  # else it has begun this very moment
            self._timeout = StepTimeout(self.step.name, seconds, "start")

    def _time_out(self, limit: Limit, told: timedelta | None) -> None:
        if self._timeout is None or limit == "total":  # after which there is none, whatever the run's clock says
            self._timeout = StepTimeout(self.step.name, told.total_seconds() if told else 0.0, limit)
        self.run.cancel()
        assert self._work is not None  # noqa: S101 - its timers begin with it
        if self._work.end is not None:
            self._end_work(self._work.end)
        elif not self._work.withdraw() and (self.is_last or limit == "total"):
            self._report(None, self._timeout)

    # The end

    def _end_work(self, end: Callable[[], object]) -> None:
        """Stop what can be stopped at once; an async function may swallow that, and its run waits for it."""
        end()
        if "stop" not in self._timers:
            context = copy_context()
            context.run(place_in_run.set, self.run)
            self._timers["stop"] = self._loop.call_later(STUBBORN_SECONDS, self._tell_of_stubborn, context=context)

    def _tell_of_stubborn(self) -> None:
        logger.warning(
            "step %s of run %s must end when it is stopped, but it has gone on for %g s, and its run waits for it; "
            "let asyncio.CancelledError pass",
            self.step.name,
            self.run.run_id,
            STUBBORN_SECONDS,
        )

    def _ended(self, future: asyncio.Future[Any]) -> None:
        self._work = None  # an error's traceback holds the function's frames, and they hold this attempt
        error: BaseException | None
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if self._timeout is not None and not self._stopping:
            error = self._timeout
        elif isinstance(error, asyncio.CancelledError) and not self._stopping:
            error = RuntimeError(f"step {self.step.name} cancelled itself")
        self._report(None if error is not None else future.result(), error)

    def _report(self, value: Any, error: BaseException | None) -> None:
        for timer in self._timers.values():
            timer.cancel()
        if not self.reported:
            self.reported = True
            # Told once: whoever is told holds this attempt, and must not be held by it any more.
            on_end, self._on_end = self._on_end, _told
            on_end(self, value, error)


def _told(attempt: Attempt, value: Any, error: BaseException | None) -> None:
    """What an attempt that has been told of would tell."""
