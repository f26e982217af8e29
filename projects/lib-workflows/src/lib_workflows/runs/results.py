"""Waiting for runs to end and for updates to be answered, here or in another process."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import NamedTuple

from sqlalchemy import select

from lib_events.database import EVENTS_TOPIC, Connection, Database
from lib_workflows.errors import RunNotFound, UpdateNotFound
from lib_workflows.runs.commands import ENDED_TOPIC
from lib_workflows.runs.state import ENDED, TERMINAL
from lib_workflows.tables import runs, updates

POLL_SECONDS = 1.0
PAUSE_SECONDS = 0.02  # between two looks, however many commits wake us
REMEMBERED = 10_000
REMEMBERED_SECONDS = 1_800.0  # what has ended is kept for longer than that: until then nobody else has its id


class Ending(NamedTuple):
    """How a run ended."""

    status: str
    output: str | None
    error: str | None


class Asked(NamedTuple):
    """An update that was sent to a run."""

    run: str
    answer: tuple[str, str | None] | None  # its status and reply; None while it waits for them


class Results:
    """Who waits for what; runs of this process end in memory, the others are looked up when something happens."""

    def __init__(self, database: Database, is_here: Callable[[str], bool]) -> None:
        self._database = database
        self._is_here = is_here
        self._waiting: dict[str, list[asyncio.Future[Ending | None]]] = {}
        self._remembered: OrderedDict[str, Ending] = OrderedDict()
        self._forget_at = monotonic() + REMEMBERED_SECONDS
        self._changed: set[asyncio.Event] = set()
        self._unsubscribe = [
            database.on_notify(topic, self.something_happened) for topic in (ENDED_TOPIC, EVENTS_TOPIC)
        ]

    def close(self) -> None:
        """Stop listening."""
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._unsubscribe = []

    def ended(self, run_id: str, ending: Ending) -> None:
        """A run of this process has ended, durably."""
        if ending.status == "completed":  # every other ending may be retried
            self._forget_old()
            self._remembered[run_id] = ending
        if len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)
        self._resolve(run_id, ending)

    def _forget_old(self) -> None:
        """Forget everything now and then: a time for each would cost more than asking the database again."""
        if monotonic() >= self._forget_at:
            self._remembered.clear()
            self._forget_at = monotonic() + REMEMBERED_SECONDS

    def gone(self, run_id: str) -> None:
        """The run left this process without ending: whoever waits for it must look elsewhere."""
        self._resolve(run_id, None)

    def _resolve(self, run_id: str, ending: Ending | None) -> None:
        for future in self._waiting.pop(run_id, ()):
            if not future.done():
                future.set_result(ending)

    async def wait(self, run_id: str) -> Ending:
        """Wait until the run has ended; raises `RunNotFound`."""
        self._database.check_loop()
        while True:
            if self._is_here(run_id):
                ending = await self._end_here(run_id)
                if ending is not None:
                    return ending
                continue
            self._forget_old()
            found = self._remembered.get(run_id)
            if found is not None:
                return found
            found = await self._look(lambda: self._ending(run_id), lambda: self._is_here(run_id))
            if found is not None:
                return found

    async def _end_here(self, run_id: str) -> Ending | None:
        future: asyncio.Future[Ending | None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(run_id, [])
        waiting.append(future)
        try:
            return await future
        finally:
            waiting.remove(future)
            if not waiting and self._waiting.get(run_id) is waiting:
                del self._waiting[run_id]

    async def wait_update(self, update_id: str) -> tuple[str, str | None]:
        """Wait until an update is answered; returns its status and reply. A run that ends without has rejected it.

        Raises `UpdateNotFound`, also for one that goes meanwhile, with its run.
        """
        while True:
            found = await self._look(lambda: self._answer(update_id), lambda: False)
            if found is not None:
                return found

    async def _answer(self, update_id: str) -> tuple[str, str | None] | None:
        return (await self._database.read(read_update, update_id)).answer

    async def _ending(self, run_id: str) -> Ending | None:
        return await self._database.read(_ending, run_id)

    async def _look[T](self, find: Callable[[], Awaitable[T | None]], is_over: Callable[[], bool]) -> T | None:
        """Ask the database now, and again whenever something happens, until it finds it or `is_over`."""
        changed = asyncio.Event()
        self._changed.add(changed)
        try:
            while not is_over():
                changed.clear()
                found = await find()
                if found is not None:
                    return found
                try:
                    async with asyncio.timeout(POLL_SECONDS):
                        await changed.wait()
                except TimeoutError:
                    continue
                await asyncio.sleep(PAUSE_SECONDS)
        finally:
            self._changed.discard(changed)
        return None

    def something_happened(self) -> None:
        """Let everybody who waits look again."""
        for event in self._changed:
            event.set()


def _ending(connection: Connection, run_id: str) -> Ending | None:
    row = connection.execute(
        select(runs.c.status, runs.c.output, runs.c.error).where(runs.c.id == run_id)
    ).one_or_none()
    if row is None:
        raise RunNotFound(run_id)
    return Ending(row.status, row.output, row.error) if row.status in ENDED else None


def read_update(connection: Connection, update_id: str) -> Asked:
    """Read an update; one that its run has ended without is rejected. Raises `UpdateNotFound`."""
    columns = (updates.c.run, updates.c.status, updates.c.reply, runs.c.status.label("run_status"))
    query = select(*columns).join(runs, runs.c.id == updates.c.run).where(updates.c.id == update_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise UpdateNotFound(update_id)
    if row.status != "pending":
        return Asked(row.run, (row.status, row.reply))
    return Asked(row.run, ("rejected", f"the run has {row.run_status}") if row.run_status in TERMINAL else None)
