"""How long the log keeps its events: by age and by number, and always what somebody has yet to read.

What is not published yet, what a subscription has not handled and what `needed` names (the place an unfinished run may
look back to) is kept however old it is. Only a subscription that has not moved for as long as events are kept counts
for nothing: its code is gone. Rows go in small transactions, oldest first, so writing is never held up.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import takewhile

from sqlalchemy import delete, func, select, update

from lib_events.clock import MICROSECOND, Clock, SystemClock
from lib_events.database import REWRITTEN_TOPIC, Connection, Database
from lib_events.event_log import head
from lib_events.lifecycle import Loop
from lib_events.tables import event_log_state, events, subscription_cursors

logger = logging.getLogger(__name__)

ROUND_SECONDS = 300.0
CHUNK_ROWS = 500
BREATH_SECONDS = 0.02  # between chunks
IN_STREAM = timedelta(days=8)  # for a day less a stream that is made anew brings an event again
SKEW = timedelta(days=1)  # between the clocks of those who publish

type Needed = Callable[[Connection], int | None]  # the position after which everything is needed; None: nothing is


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """What to keep: events younger than `age`, and at most the last `events` of those, and of the imported ones."""

    age: timedelta = timedelta(days=30)
    events: int | None = None
    at_least: timedelta | None = None  # what is younger stays, however many there are

    def __post_init__(self) -> None:
        """Refuse what would forget an imported event while its stream could bring it again."""
        if self.age < IN_STREAM:
            raise ValueError(f"events must be kept at least 8 days, a day longer than in their stream, got {self.age}")
        if self.events is not None and self.events < 100_000:
            raise ValueError(f"at least the last 100,000 events must be kept, got {self.events}")


class Retention(Loop):
    """Prunes the log where this process leads in it."""

    def __init__(
        self,
        database: Database,
        keep: Keep,
        *,
        needed: Sequence[Needed] = (),
        is_published: bool = True,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(name="retention")
        self._database = database
        self._keep = keep
        self._needed = needed
        self._is_published = is_published
        self._clock = clock or SystemClock()

    async def run(self) -> None:
        """Wait to lead, then prune now and then until the lead is lost."""
        async with self._database.leading("retention"):
            while True:
                await self.prune()
                await self.pause(ROUND_SECONDS)

    async def prune(self) -> int:
        """Prune all there is to prune and return how many rows went."""
        pruned = 0
        while rows := await self._database.transact(self._prune_chunk):
            pruned += rows
            await asyncio.sleep(BREATH_SECONDS)
        if pruned:
            logger.info("pruned %d rows of the event log", pruned)
        return pruned

    def _prune_chunk(self, connection: Connection) -> int:
        now = self._clock.micros()
        oldest = now - self._keep.age // MICROSECOND
        limit = self._limit(connection, oldest)
        surplus = 0 if self._keep.events is None else head(connection).position - self._keep.events
        rows = connection.execute(
            select(events.c.last_position, events.c.time, events.c.imported)
            .where(events.c.last_position <= limit)
            .order_by(events.c.last_position)
            .limit(CHUNK_ROWS)
        ).all()
        # A time far in the future tells nothing: it goes with those around it.
        latest = now + SKEW // MICROSECOND
        least = self._keep.at_least
        youngest = latest if least is None else now - least // MICROSECOND
        once = now - IN_STREAM // MICROSECOND  # what is forgotten sooner would be imported, and handled, again
        droppable = takewhile(
            lambda row: (
                (row.last_position <= surplus and row.time <= (min(youngest, once) if row.imported else youngest))
                or not oldest <= row.time <= latest
            ),
            rows,
        )
        reached = max((row.last_position for row in droppable), default=None)
        if reached is None:
            return 0
        connection.execute(update(event_log_state).values(pruned_position=reached))
        connection.notify(REWRITTEN_TOPIC)
        pruned: int = connection.execute(delete(events).where(events.c.last_position <= reached)).rowcount
        return pruned

    def _limit(self, connection: Connection, oldest: int) -> int:
        """The position up to which nobody needs anything any more."""
        state = connection.execute(select(event_log_state)).one()
        moving = subscription_cursors.c.updated_at >= oldest
        handled: int | None = connection.scalar(select(func.min(subscription_cursors.c.position)).where(moving))
        limits = [state.placed_position, handled, *(find(connection) for find in self._needed)]
        if self._is_published:
            limits.append(state.published_position)
        lowest: int = min(limit for limit in limits if limit is not None)
        return lowest
