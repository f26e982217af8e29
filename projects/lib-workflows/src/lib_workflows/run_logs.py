"""What runs log: a line of the standard library's logging becomes a row of the run it was made in.

A context variable says in which run a line is made, and where: the driver runs a workflow in such a context, each
attempt of a step has one (its threads and tasks inherit it), and so has each transaction function. A handler on the
root logger looks there; lines made elsewhere cost it one look. Lines are gathered in memory and handed to the group
commit soon after, many at once. No run waits for them: a crash, or a database that cannot keep up, loses lines,
never work. What a workflow logged before a crash it logs again on replay, and that is not kept again.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from itertools import count
from typing import NamedTuple, Protocol

from lib_events.database import CommitQueueFull, Database
from lib_events.redaction import describe
from lib_events.statement import Fence, Write
from lib_workflows.statements import APPEND_LOG

logger = logging.getLogger(__name__)

LINES_OF_A_RUN = 1_000
MESSAGE_BYTES = 4_096
GATHER_SECONDS = 0.2
GATHER_LINES = 500
SETTLE_SECONDS = 5.0
UNSAVED_LINES = 10_000  # of all runs: past it the database is not keeping up
CUT = " … (cut)"
FULL = f"a run keeps {LINES_OF_A_RUN:,} lines: what it logged after this is not kept"


class Line(NamedTuple):
    """One row, in the order of the statement's columns."""

    run: str
    number: int
    at: int
    level: str
    logger: str
    message: str
    operation: str | None
    attempt: int | None


class Place(NamedTuple):
    """In a run: its log, and the operation and attempt that are under way; None: the workflow itself."""

    log: "RunLog | None"
    operation: str | None = None
    attempt: int | None = None


class AttemptPlace(Protocol):
    """In an attempt of a step, which says the same of itself."""

    log: "RunLog | None"
    operation: str
    attempt: int


NOWHERE = Context()  # what saves the lines of many runs is in none of them
place_in_run: ContextVar[Place | AttemptPlace | None] = ContextVar("place_in_run", default=None)


@contextmanager
def logged_at(place: Place) -> Iterator[None]:
    """What is logged inside belongs there."""
    token = place_in_run.set(place)
    try:
        yield
    finally:
        place_in_run.reset(token)


class RunLog:
    """The log of one run in memory; lines come from the loop and from threads."""

    __slots__ = ("_logs", "_numbers", "is_replaying", "run_id")

    def __init__(self, logs: "RunLogs", run_id: str, kept: int) -> None:
        self.run_id = run_id
        self.is_replaying = False
        self._logs = logs
        self._numbers = count(kept + 1)  # threads take from it one at a time

    def add(self, record: logging.LogRecord, place: Place | AttemptPlace) -> None:
        """Keep a line, unless a replay makes it again or the run has had its share."""
        if self.is_replaying and place.operation is None:
            return
        number = next(self._numbers)
        if number > LINES_OF_A_RUN + 1:
            return
        message = FULL if number > LINES_OF_A_RUN else storable(describe(record))
        level, at = record.levelname.lower(), int(record.created * 1e6)
        self._logs.put(
            Line(self.run_id, number, at, level, storable(record.name), message, place.operation, place.attempt)
        )


def storable(text: str) -> str:
    """The text as a database can keep it: no half characters, no NUL, not too long."""
    encoded = text.replace("\0", "\\0").encode(errors="backslashreplace")
    if len(encoded) <= MESSAGE_BYTES:
        return encoded.decode()
    return encoded[: MESSAGE_BYTES - len(CUT.encode())].decode(errors="ignore") + CUT


def is_configured(name: str) -> bool:
    """Whether a handler other than ours hears the logger."""
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None:
        if any(not isinstance(handler, RunLogs) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


class RunLogs(logging.Handler):
    """The lines of an engine's runs on their way to the database; a handler of the root logger while it is open."""

    def __init__(self, database: Database, fence: Callable[[], Fence | None]) -> None:
        super().__init__()
        self._database = database
        self._fence = fence
        self._lines: deque[Line] = deque()
        self._saving: set[asyncio.Future[None]] = set()
        self._unsaved = 0  # handed over, and not on disk
        self._lost = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_gathering = False

    def of_run(self, run_id: str, kept: int) -> RunLog:
        """The log of a run that comes into memory with so many lines kept."""
        return RunLog(self, run_id, kept)

    def open(self) -> None:
        """Begin to listen."""
        self._loop = asyncio.get_running_loop()
        logging.getLogger().addHandler(self)

    def close(self) -> None:
        """Stop listening; safe to call twice."""
        logging.getLogger().removeHandler(self)
        self._loop = None
        super().close()

    def _write_where_nobody_listens(self, record: logging.LogRecord) -> None:
        """Without any handler Python writes warnings to standard error: we are one, and must not silence them."""
        last, handlers = logging.lastResort, logging.getLogger().handlers
        if last is None or (record.levelno or 0) < last.level or handlers[:1] != [self] or is_configured(record.name):
            return
        last.handle(record)

    def handle(self, record: logging.LogRecord) -> bool:
        """Keep a record that was made in a run of ours; nothing here needs the handler's lock."""
        self._write_where_nobody_listens(record)
        place = place_in_run.get()
        log = place.log if place is not None else None
        if place is None or log is None or log._logs is not self or record.name == __name__:  # no lines about lines
            return False
        try:
            log.add(record, place)
        except Exception:  # noqa: BLE001 - arguments that do not fit the message must not fail who logs
            self.handleError(record)
        return True

    def put(self, line: Line) -> None:
        """Take a line; from any thread."""
        if self._unsaved + len(self._lines) >= UNSAVED_LINES:
            self._lost += 1
            return
        self._lines.append(line)
        if not self._is_gathering:
            self._is_gathering = True
            self._call(self._gather)
        elif len(self._lines) == GATHER_LINES:
            self._call(self.save)

    def _call(self, function: Callable[[], None]) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # a thread that outlives the loop
                self._loop.call_soon_threadsafe(function, context=NOWHERE.copy())

    def _gather(self) -> None:
        if self._loop is not None:
            self._loop.call_later(GATHER_SECONDS, self._gathered)

    def _gathered(self) -> None:
        self._is_gathering = False
        self.save()

    def save(self) -> None:
        """Hand what there is to the next group commit."""
        if self._lost:
            lost, self._lost = self._lost, 0
            logger.warning("%d lines that runs logged are lost: they came faster than they could be saved", lost)
        writes = []
        while self._lines:  # threads may add to it meanwhile
            writes.append(Write(APPEND_LOG, self._lines.popleft()))
        if not writes:
            return
        try:
            saving = self._database.write(*writes, fence=self._fence())
        except CommitQueueFull:
            self._lost += len(writes)
            return
        self._unsaved += len(writes)
        self._saving.add(saving)
        saving.add_done_callback(lambda done: self._saved(done, len(writes)))

    def _saved(self, saving: asyncio.Future[None], lines: int) -> None:
        self._saving.discard(saving)
        self._unsaved -= lines
        if not saving.cancelled() and (error := saving.exception()) is not None:
            logger.warning("%d lines that runs logged are lost: %s", lines, error)

    async def settle(self) -> None:
        """Hand over what there is, and wait until it is saved or lost."""
        self.save()
        if self._saving:
            await asyncio.wait(self._saving, timeout=SETTLE_SECONDS)
