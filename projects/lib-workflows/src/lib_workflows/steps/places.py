"""Where steps run: async ones on the loop, others in a thread, CPU-bound ones in a process beside the engine."""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lib_workflows.authoring.step import Step, StepRun
from lib_workflows.exits import awaiting, calling
from lib_workflows.run_logs import place_in_run
from lib_workflows.steps.process import StepProcess
from lib_workflows.steps.traced import ask_whether_traced, be_within_step

if TYPE_CHECKING:
    from lib_events.tracing.traces import Traces

type AnyStep = Step[*tuple[Any, ...], Any]


@dataclass(slots=True)
class Work:
    """A function under way. `end` stops it at once; None where nothing can (a thread).

    `withdraw` takes it back while it still waits for a thread or process, and returns whether it did.
    """

    future: asyncio.Future[Any]
    end: Callable[[], object] | None = None
    withdraw: Callable[[], bool] = lambda: False


class _Passage:
    """A step's way through a process: ending it kills the process it is in, and never one that another step is in."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: StepProcess | None = None
        self._is_ending = False

    def enter(self, process: StepProcess) -> None:
        """The step is in `process` now."""
        with self._lock:
            self._process = process
            if self._is_ending:
                process.kill()

    def leave(self) -> None:
        """The step is in no process any more."""
        with self._lock:
            self._process = None

    def end(self) -> None:
        """Kill the process it is in, or will be in."""
        with self._lock:
            self._is_ending = True
            if self._process is not None:
                self._process.kill()


class StepPlaces:
    """The threads and processes of an engine; each begins when it is first needed."""

    def __init__(self, *, threads: int, processes: int, traces: "Traces | None" = None) -> None:
        self._traces = traces
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="step")
        # One thread for each process talks to it: its queue is the queue of the processes.
        self._talkers = ThreadPoolExecutor(processes, thread_name_prefix="step-process")
        self._here = threading.local()
        self._processes: set[StepProcess] = set()
        self._is_closed = False

    def begin(self, step: AnyStep, args: tuple[Any, ...], run: StepRun, on_begun: Callable[[], None] | None) -> Work:
        """Run a step; `on_begun` is called on the loop when a thread or process has taken it up.

        An async step that never waits has ended when this returns. Raises what calling it raises.
        """
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        context.run(place_in_run.set, run)
        if self._traces is not None:
            ask_whether_traced(run, self._traces)
            context.run(be_within_step, run)
        if step.is_async:
            task = asyncio.Task(awaiting(step.function(*args)), loop=loop, context=context, eager_start=True)
            return Work(task, task.cancel)
        if step.options.process:
            return self._begin_in_process(step, args, run, on_begun, context)

        def call() -> Any:
            if on_begun is not None:
                loop.call_soon_threadsafe(on_begun)
            return context.run(calling, step.function, *args)

        waiting = self._threads.submit(call)
        return Work(asyncio.wrap_future(waiting), withdraw=waiting.cancel)

    def _begin_in_process(
        self,
        step: AnyStep,
        args: tuple[Any, ...],
        run: StepRun,
        on_begun: Callable[[], None] | None,
        context: contextvars.Context,
    ) -> Work:
        loop = asyncio.get_running_loop()
        passage = _Passage()

        def begun() -> None:
            if on_begun is not None:
                loop.call_soon_threadsafe(on_begun)

        def call() -> Any:
            process = self._process_of_this_thread()
            passage.enter(process)
            try:
                return process.call(step, args, run, begun)
            finally:
                passage.leave()
                if process.is_over:
                    self._let_go(process)

        # In the step's context: what the process logs is the run's.
        waiting = self._talkers.submit(context.run, call)
        future = asyncio.wrap_future(waiting)

        def end() -> None:
            passage.end()
            future.cancel()

        return Work(future, end, waiting.cancel)

    def _process_of_this_thread(self) -> StepProcess:
        process: StepProcess | None = getattr(self._here, "process", None)
        if process is None:
            process = self._here.process = StepProcess()
            self._processes.add(process)
            if self._is_closed:
                process.kill()
        return process

    def _let_go(self, process: StepProcess) -> None:
        self._here.process = None
        self._processes.discard(process)
        process.close()

    def close(self) -> None:
        """End the processes and whatever waits; threads that are under way end by themselves."""
        self._is_closed = True
        for process in tuple(self._processes):
            process.kill()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._talkers.shutdown(wait=True, cancel_futures=True)
        for process in tuple(self._processes):
            process.close()
