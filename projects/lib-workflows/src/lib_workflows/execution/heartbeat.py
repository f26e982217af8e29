"""Heartbeats of a step: heard at once by whoever watches, kept now and then for the attempt after a crash."""

import asyncio
import time
from typing import TYPE_CHECKING, Any

from lib_events.statement import Write
from lib_workflows.authoring.step import StepRun
from lib_workflows.runs.record import Progress
from lib_workflows.statements import PUT_HEARTBEAT
from lib_workflows.values.codec import encode_given

if TYPE_CHECKING:
    from lib_workflows.execution.executor import Executor
    from lib_workflows.steps.attempt import Attempt

KEEP_SECONDS = 1.0  # at most so often progress is written


class Heart:
    """What `current_step().heartbeat()` calls, from any thread."""

    __slots__ = ("_executor", "_keep_at", "_loop", "_name", "_unkept", "attempt")

    def __init__(self, executor: "Executor", name: str) -> None:
        self._executor = executor
        self._name = name  # of the step
        self._loop = asyncio.get_running_loop()
        self._keep_at = 0.0
        self._unkept: str | None = None
        self.attempt: Attempt | None = None

    def beat(self, run: StepRun, progress: Any) -> None:
        """Pass a heartbeat on; raises `PayloadInvalid` or `PayloadTooLarge`."""
        if self.attempt is not None:
            self.attempt.hear()
        text = encode_given(progress, f"progress of step {run.name}") if progress is not None else None
        if run.tokens is not None:
            run.tokens.check(text, "its progress")
        detail = {"operation": run.operation, "step": run.name, "progress": progress}
        self._executor.home.report_progress(run.run_id, None, "", detail)
        if text is None:
            return
        self._unkept = text
        if time.monotonic() >= self._keep_at:
            self._keep_at = time.monotonic() + KEEP_SECONDS
            self._loop.call_soon_threadsafe(self._keep_now, run.operation)

    def keep(self, operation: str) -> None:
        """Write the last progress, with the next flush."""
        executor, text = self._executor, self._unkept
        if text is None or executor.ended:
            return
        self._unkept = None
        executor.progress[operation] = Progress(text, self._name)
        row = (executor.run.id, operation, text, executor.clock_micros(), self._name)
        executor.ledger.add(Write(PUT_HEARTBEAT, row))

    def _keep_now(self, operation: str) -> None:
        if self.attempt is not None and self._executor.running.get(operation) is self.attempt:
            self.keep(operation)
            self._executor.ledger.flush()
