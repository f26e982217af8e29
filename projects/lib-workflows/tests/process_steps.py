"""Steps that run in a process: it imports this module, and nothing else of the tests."""

import logging
import os
import sys
import threading
import time
from datetime import timedelta

from opentelemetry import trace

from lib_workflows import Backoff, current_step, step

FAST = Backoff(initial=timedelta(milliseconds=1), maximum=timedelta(milliseconds=2))
FOR_EVER_SECONDS = 30.0  # nothing may wait so long


@step(heartbeat_timeout=timedelta(milliseconds=100), retries=1, backoff=FAST, process=True)
def silent_in_a_process() -> str:
    if current_step().attempt == 1:
        time.sleep(FOR_EVER_SECONDS)
    return f"attempt {current_step().attempt}"


@step(process=True)
def says_where_it_is(row: int) -> None:
    logging.getLogger("copier").warning("at row %d, password=%s", row, "hunter2")


@step(process=True)
def place_of_step() -> list[str]:
    here = trace.get_current_span().get_span_context()
    found = f"00-{here.trace_id:032x}-{here.span_id:016x}-{here.trace_flags:02x}"
    return [current_step().traceparent, found]


@step(process=True)
def pid_of_step() -> int:
    return os.getpid()


@step(process=True)
def exits() -> None:
    sys.exit(6)


class Overdrawn(Exception):
    def __init__(self, missing: int) -> None:
        super().__init__(f"{missing} missing")
        self.missing = missing


@step(process=True, errors=(Overdrawn,))
def overdraws(missing: int) -> None:
    raise Overdrawn(missing)


class Uncopied:
    def __reduce__(self):
        raise ValueError("not to be copied")


@step(process=True)
def gives_what_cannot_be_pickled() -> object:
    return Uncopied()


@step(process=True)
def divides(number: int) -> float:
    return 1 / number


@step(process=True, retries=1, backoff=FAST)
def dies_at_first() -> str:
    if current_step().attempt == 1:
        os.kill(os.getpid(), 9)
    return "lived"


@step(process=True)
def never_ends() -> None:
    current_step().heartbeat(os.getpid())
    time.sleep(FOR_EVER_SECONDS)


@step(process=True)
def returns_a_lock() -> object:
    return threading.Lock()


class Odd:
    """A process can send it, and no history can keep it."""


@step(process=True)
def beats_something_odd() -> str:
    current_step().heartbeat(Odd())
    return "the step before"


@step(process=True)
def says(word: str) -> str:
    return word
