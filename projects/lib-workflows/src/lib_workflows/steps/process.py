"""A process for CPU-bound steps: it runs one step at a time and is killed when that step must stop.

Not `multiprocessing`: that imports the parent's main module again, which for a service is the whole service. This
child imports the module of the step alone. Parent and child share a socket; what crosses it is pickled, and both
ends are ours.
"""

import contextlib
import importlib
import importlib.util
import inspect
import logging
import logging.handlers
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from typing import Any

from lib_events.parent_watch import dying_with_us
from lib_workflows.authoring.step import Step, StepRun
from lib_workflows.errors import ErrorRecord, StepProcessDied
from lib_workflows.exits import calling
from lib_workflows.run_logs import place_in_run
from lib_workflows.steps.traced import be_within_step
from lib_workflows.values.failure import RemoteError, record_of

MAIN = "__main__"
CHILD = "from lib_workflows.steps.process import main; main()"


@dataclass(frozen=True, slots=True)
class Location:
    """Where a process finds a step: the module by name, else by its file."""

    module: str
    file: str | None
    name: str

    @classmethod
    def of(cls, function: Callable[..., Any]) -> "Location":
        """The location of a function at the top of its module."""
        return cls(function.__module__, inspect.getsourcefile(function), function.__qualname__)

    def find(self) -> Callable[..., Any]:
        """Import the function; raises whatever its module raises."""
        found = _import_script(self.file) if self.module == MAIN else self._import()
        for part in self.name.split("."):
            found = getattr(found, part)
        function: Callable[..., Any] = found.function if isinstance(found, Step) else found
        return function

    def _import(self) -> Any:
        if self.module in sys.modules:
            return sys.modules[self.module]
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module(self.module)
        return _import_file(self.module, self.file)


@cache
def _import_script(file: str | None) -> Any:
    """Import what is `__main__` in the parent, once; it must not begin its work again, so it has another name here.

    That name is the one by which the parent knows it too (`multiprocessing` sees to that): results can be pickled.
    """
    module = _import_file("__mp_main__", file)
    sys.modules[MAIN] = module  # the name by which the parent has pickled arguments
    return module


def _import_file(name: str, file: str | None) -> Any:
    specification = importlib.util.spec_from_file_location(name, file) if file is not None else None
    if specification is None or specification.loader is None:
        raise ModuleNotFoundError(f"a step must be in a file to run in a process, got one of {name}")
    sys.modules[name] = module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


class StepProcess:
    """The parent's end; its methods block, except `kill`."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        os.set_inheritable(theirs.fileno(), True)  # noqa: FBT003 - the only way to say it
        command = dying_with_us([sys.executable, "-c", CHILD, str(theirs.fileno())])
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)  # noqa: S603
        theirs.close()
        self._connection = Connection(ours.detach())
        self.is_over = False

    def call(self, step: Step[Any, Any], args: tuple[Any, ...], run: StepRun, on_begun: Callable[[], object]) -> Any:
        """Run a step there and return its result; raises its error, or `StepProcessDied`.

        `on_begun` is called once the process has imported the step.
        """
        try:
            kind, value = self._talk(step, args, run, on_begun)
        except (EOFError, ConnectionError) as error:
            raise StepProcessDied(
                f"the process of step {step.name} ended with {self._process.wait()}; look for a crash of its code or "
                "for memory that ran out"
            ) from error
        if kind == "failed":
            raise RemoteError.rebuilt(value, step.options.errors)
        return value

    def _talk(
        self, step: Step[Any, Any], args: tuple[Any, ...], run: StepRun, on_begun: Callable[[], object]
    ) -> tuple[str, Any]:
        """Tell the child what to do and hear it out; its last word is `completed` or `failed`."""
        level = logging.getLogger().getEffectiveLevel()
        message = (Location.of(step.function), _facts(run), pickle.dumps(args), level)
        try:
            self._connection.send(message)
            while True:
                kind, value = pickle.loads(self._connection.recv_bytes())  # noqa: S301 - of our own child
                if kind == "heartbeat":
                    run.heartbeat(value)
                elif kind == "logged":
                    logging.getLogger(value.name).handle(value)
                elif kind == "begun":
                    on_begun()
                else:
                    return kind, value
        except BaseException:
            self.kill()  # its last word on this step must not be heard by the next one
            raise

    def kill(self) -> None:
        """End the process at once; safe to call twice and from any thread."""
        self.is_over = True
        with contextlib.suppress(OSError):
            self._process.kill()

    def close(self) -> None:
        """End the process and let go of it."""
        self.kill()
        self._process.wait()
        self._connection.close()


def _facts(run: StepRun) -> dict[str, Any]:
    names = (
        "run_id",
        "operation",
        "name",
        "attempt",
        "last_progress",
        "scope",
        "undone",
        "life",
        "trace",
        "correlation_id",
        "is_traced",
    )  # fmt: skip
    return {name: getattr(run, name) for name in names}


class _Sender(logging.handlers.QueueHandler):
    """Sends what the child logs to its parent, where it belongs to the run like any other line."""

    def enqueue(self, record: logging.LogRecord) -> None:
        """The base class has made it fit to be pickled; its `queue` is the way to the parent."""
        self.queue("logged", record)  # type: ignore[operator]


def serve(connection: Connection) -> None:
    """The child: run what comes until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    sending = threading.Lock()  # a step's own threads may send heartbeats

    def send(kind: str, value: Any) -> None:
        message = pickle.dumps((kind, value))
        with sending:
            connection.send_bytes(message)

    root = logging.getLogger()
    root.addHandler(_Sender(send))  # type: ignore[arg-type]
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            location, facts, packed, level = connection.recv()
            root.setLevel(level)
            kind, value = _perform(location, facts, packed, send)
            try:
                send(kind, value)
            except ConnectionError:
                raise
            except Exception as error:  # noqa: BLE001 - how a result is pickled is its class's code
                send("failed", record_of(error))


def _perform(
    location: Location, facts: dict[str, Any], packed: bytes, send: Callable[[str, Any], None]
) -> tuple[str, Any]:
    run = StepRun(**facts, on_heartbeat=lambda _, progress: send("heartbeat", progress))
    token = place_in_run.set(run)
    try:
        if run.is_traced is not None:
            be_within_step(run)
        function = location.find()
        send("begun", None)
        return "completed", calling(function, *pickle.loads(packed))  # noqa: S301 - of our own parent
    except Exception as error:  # noqa: BLE001 - whatever the step raises is its result
        record: ErrorRecord = record_of(error)
        return "failed", record
    finally:
        run.on_heartbeat = _not_heard  # a thread that the step has left behind is not the next step
        place_in_run.reset(token)


def _not_heard(run: StepRun, progress: Any) -> None:
    """A heartbeat of a step that has ended."""


def main() -> None:
    """The child's beginning: its end of the socket is the first argument."""
    serve(Connection(int(sys.argv[1])))
