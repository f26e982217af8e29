"""One attempt of a step: an eager task for an async step, a thread for a synchronous one."""

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Executor as Threads
from typing import Any

from lib_workflows.errors import StepTimeout
from lib_workflows.run_logs import Place, log_place
from lib_workflows.step import Step, StepRun, running_step


class Attempt:
    """Runs a step once and tells how it ended, exactly once.

    A thread cannot be ended from outside. A synchronous attempt that is told to stop is reported at once and
    lingers; one that ran out of time is reported when its thread has ended, so that its retry never runs beside
    it, unless there is no retry (`is_last`).
    """

    __slots__ = ("_on_end", "_stopping", "_timed_out", "_timer", "args", "future", "is_last", "reported", "run", "step")

    def __init__(
        self,
        step: Step[*tuple[Any, ...], Any],
        args: tuple[Any, ...],
        run: StepRun,
        *,
        is_last: bool,
        on_end: Callable[["Attempt", Any, BaseException | None], None],
    ) -> None:
        self.step = step
        self.args = args
        self.run = run
        self.is_last = is_last
        self.reported = False
        self.future: asyncio.Future[Any] | None = None
        self._on_end = on_end
        self._timer: asyncio.TimerHandle | None = None
        self._timed_out = False
        self._stopping = False

    @property
    def lingers(self) -> bool:
        """Whether its function is still running though its end has been told."""
        return self.reported and self.future is not None and not self.future.done()

    def start(self, threads: Threads) -> None:
        """Begin; an async step that never waits has ended when this returns."""
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        context.run(running_step.set, self.run)
        if self.run.run_log is not None:
            context.run(log_place.set, Place(self.run.run_log, self.run.operation, self.run.attempt))
        try:
            if self.step.is_async:
                coroutine = self.step.function(*self.args)
                self.future = asyncio.Task(coroutine, loop=loop, context=context, eager_start=True)
            else:
                self.future = loop.run_in_executor(threads, context.run, self.step.function, *self.args)
        except Exception as error:  # noqa: BLE001 - wrong arguments are the step's failure
            self._report(None, error)
            return
        if self.future.done():
            self._ended(self.future)
            return
        if self.step.timeout_seconds is not None:
            self._timer = loop.call_later(self.step.timeout_seconds, self._time_out)
        self.future.add_done_callback(self._ended)

    def stop(self) -> None:
        """Ask the function to stop; reported with `asyncio.CancelledError` unless it ends otherwise."""
        self._stopping = True
        self.run.cancel()
        if self.future is not None and self.step.is_async:
            self.future.cancel()
        else:
            self._report(None, asyncio.CancelledError())

    def _time_out(self) -> None:
        self._timed_out = True
        self.run.cancel()
        if self.future is not None and self.step.is_async:
            self.future.cancel()
        elif self.is_last:
            self._report(None, self._timeout_error())

    def _ended(self, future: asyncio.Future[Any]) -> None:
        error: BaseException | None
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if self._timed_out and not self._stopping:
            error = self._timeout_error()
        elif isinstance(error, asyncio.CancelledError) and not self._stopping:
            error = RuntimeError(f"step {self.step.name} cancelled itself")
        self._report(None if error is not None else future.result(), error)

    def _timeout_error(self) -> StepTimeout:
        return StepTimeout(self.step.name, self.step.timeout_seconds or 0.0)

    def _report(self, value: Any, error: BaseException | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self.reported:
            self.reported = True
            self._on_end(self, value, error)
