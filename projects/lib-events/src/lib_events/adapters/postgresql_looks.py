"""Looks on PostgreSQL, several at a time: those that wait for one another share a connection and a snapshot.

A look begins as soon as none is under way, so an idle service waits for nobody, and a busy one makes its own groups, as
commits do. Begin, end and borrowing a connection cost more than finding one row by its key.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, cast

import asyncpg
from sqlalchemy import Connection as CoreConnection

from lib_events.adapters.postgresql_errors import FUNCTION_ERRORS, is_lost, is_unable, not_read
from lib_events.adapters.postgresql_pool import Pool
from lib_events.database import Connection

SNAPSHOT: Final[dict[str, Any]] = {"isolation": "repeatable_read", "readonly": True}
GROUP_LIMIT = 8  # looks on one connection, one after another …
GROUPS_LIMIT = 4  # … and connections on which they run beside one another


@dataclass(slots=True)
class _Look:
    function: Callable[[Connection], Any]
    future: asyncio.Future[Any]


type Guard = Callable[[CoreConnection, asyncpg.Connection], Connection]


class Looks:
    """Runs functions that only read, in groups, on connections of `pool` that `guard` makes harmless."""

    def __init__(self, pool: Pool, guard: Guard) -> None:
        self._pool = pool
        self._guard = guard
        self._waiting: list[_Look] = []
        self._under_way: set[asyncio.Task[None]] = set()

    def submit(self, function: Callable[[Connection], Any]) -> asyncio.Future[Any]:
        """Return the future of what `function` finds."""
        loop = asyncio.get_running_loop()
        look = _Look(function, loop.create_future())
        self._waiting.append(look)
        is_full = len(self._waiting) >= GROUP_LIMIT and len(self._under_way) < GROUPS_LIMIT
        if is_full or not self._under_way:
            task = loop.create_task(self._drain(), name="postgresql-looks")
            self._under_way.add(task)
        return look.future

    async def finish(self) -> None:
        """Wait until every look has its answer."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    async def _drain(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[:GROUP_LIMIT], self._waiting[GROUP_LIMIT:]
                await self._run(deque(group))
        finally:  # at once: whoever was just answered may look again before anybody hears of the task's end
            self._under_way.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _run(self, looks: deque[_Look]) -> None:
        """Answer all of them; those behind one whose statement failed look once more, without it."""
        try:
            # The snapshot is taken after everybody in the group has asked: nobody sees less than was there then.
            async with self._pool.lend() as borrowed, (raw := borrowed.raw).transaction(**SNAPSHOT):
                await borrowed.core.run_sync(lambda sync: _answer(self._guard(sync, raw), looks))
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            is_databases = is_lost(error) or is_unable(error)
            if isinstance(error, FUNCTION_ERRORS) and not is_databases and looks:
                _fail([looks.popleft()], error)
                self._waiting[:0] = looks
            else:
                _fail(looks, not_read(error) if is_databases else error)
        except BaseException:
            for look in looks:
                look.future.cancel()
            raise


def _answer(connection: Connection, looks: deque[_Look]) -> None:
    """Run one after another; who has its answer is no longer among them."""
    while looks:
        future = looks[0].future
        try:
            value = None if future.done() else looks[0].function(connection)
        except FUNCTION_ERRORS:
            raise  # the transaction is over
        except Exception as error:  # noqa: BLE001 - the function's own
            _fail([looks[0]], error)
        else:
            if not future.done():
                future.set_result(value)
        looks.popleft()


def _fail(looks: Iterable[_Look], error: Exception) -> None:
    for look in looks:
        if not look.future.done():
            look.future.set_exception(error)
            look.future.exception()  # a waiter that left must not make the loop complain
