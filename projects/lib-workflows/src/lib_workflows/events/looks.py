"""Looks for events, several at a time: runs that begin to wait at the same moment are registered in one transaction.

Each holds the matcher's cursor, and one at a time may: with a transaction for each wait they would queue there, every
one with a connection of its own. A look begins as soon as none is under way, so load makes its own groups.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from lib_events.database import Database, is_database_failure
from lib_events.statement import Fence
from lib_workflows.events.waits import Looked, Wait, register_event_waits

GROUP_LIMIT = 100  # bounds how long the cursor is held


@dataclass(slots=True, eq=False)
class _Asked:
    wait: Wait
    fence: Fence | None
    future: asyncio.Future[Looked]


class EventLooks:
    """Registers the waits of all runs in memory; `spawn` runs what ends with the engine."""

    def __init__(self, database: Database, spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]) -> None:
        self._database = database
        self._spawn = spawn
        self._asked: list[_Asked] = []
        self._running: asyncio.Task[None] | None = None

    async def look(self, wait: Wait, fence: Fence | None) -> Looked:
        """Return what `register_event_waits` found for `wait`. Raises what `Database.transact` raises."""
        asked = _Asked(wait, fence, asyncio.get_running_loop().create_future())
        self._asked.append(asked)
        if self._running is None:
            self._running = self._spawn(self._drain())
        return await asked.future

    async def _drain(self) -> None:
        try:
            while self._asked:
                await self._register(self._next_group())
        finally:
            self._running = None

    def _next_group(self) -> list[_Asked]:
        """Take those that have waited longest and belong to one life."""
        fence = self._asked[0].fence
        group = [asked for asked in self._asked if asked.fence == fence][:GROUP_LIMIT]
        taken = set(group)
        self._asked = [asked for asked in self._asked if asked not in taken]
        return group

    async def _register(self, group: Sequence[_Asked]) -> None:
        """Register all at once; if one is bad, each by itself so that only it fails."""
        waits = [asked.wait for asked in group]
        try:
            found = await self._database.transact(register_event_waits, waits, fence=group[0].fence)
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            if len(group) > 1 and not is_database_failure(error):
                for asked in group:
                    await self._register([asked])
            else:
                _fail(group, error)
        else:
            for asked, looked in zip(group, found, strict=True):
                if not asked.future.done():
                    asked.future.set_result(looked)


def _fail(group: Sequence[_Asked], error: Exception) -> None:
    for asked in group:
        if not asked.future.done():
            asked.future.set_exception(error)
            asked.future.exception()  # a waiter that left must not make the loop complain
