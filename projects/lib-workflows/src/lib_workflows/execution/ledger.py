"""What a run has decided and not saved yet, and whether everything it depends on is on disk.

The output-commit rule: a run goes on with a result at once, but before its next effect, and before its own
result is released, everything it has decided must be durable. So a step's row shares a commit with whatever
else is going on, and a chain of steps costs one commit each.

Each commit names those before it that it was decided upon, also those of children whose end was heard: where the
database refuses one, it refuses what came of it.

The run's own row is a projection of memory: at most one write of it is under way, the next one carries the
newest state (one group commit must not hold two versions of a row).
"""

import asyncio
from collections.abc import Callable, Collection
from typing import Any, Protocol

from lib_events.database import CommitFailed, CommitQueueFull, Database
from lib_events.event import EncodedEvent, Recordable
from lib_events.statement import Fence, Write
from lib_workflows.statements import UPDATE_RUN

type OnItsWay = Callable[[asyncio.Future[None]], None]


class Holder(Protocol):
    """Whose ledger it is: it says what its row is now, and hears what became of what it handed in."""

    def row(self) -> tuple[Any, ...]:
        """The run's own row."""
        ...

    def on_durable(self) -> None:
        """Everything decided so far is on disk."""
        ...

    def on_ended(self, saving: asyncio.Future[None]) -> None:
        """Its last state is on its way."""
        ...

    def on_lost(self, error: BaseException) -> None:
        """Something was not saved: nothing in memory may be believed any more."""
        ...


class Ledger:
    """Gathers the rows and events of one run and hands them to the group commit."""

    __slots__ = (
        "_after", "_database", "_events", "_fence", "_holder", "_last", "_on_their_way", "_row_ends", "_row_events",
        "_row_is_due", "_row_on_its_way", "_topics", "_writes",
    )  # fmt: skip

    def __init__(self, database: Database, fence: Fence | None, holder: Holder) -> None:
        self._database = database
        self._fence = fence
        self._holder: Holder | None = holder
        self._writes: list[Write] = []
        self._events: list[Recordable] = []
        self._topics: set[str] = set()
        self._on_their_way: list[OnItsWay] = []  # who wants to know the commit of what they added
        self._last: asyncio.Future[None] | None = None
        self._after: list[asyncio.Future[None]] = []  # what of others it has heard that may not be saved yet
        self._row_on_its_way: asyncio.Future[None] | None = None
        self._row_is_due = False
        self._row_ends = False
        self._row_events: list[EncodedEvent] = []

    @property
    def is_durable(self) -> bool:
        """Whether everything decided so far is on disk."""
        return self._last is None and not self._writes and not self._row_is_due

    @property
    def closed(self) -> bool:
        """Whether it has been released."""
        return self._holder is None

    def release(self) -> None:
        """Let go of the run: nothing of it is saved or heard any more."""
        self._holder = None

    def heard(self, saving: asyncio.Future[None]) -> None:
        """What comes next is decided upon something that `saving` saves."""
        self._after.append(saving)

    def add(self, write: Write, on_its_way: OnItsWay | None = None) -> None:
        """Save a row with the next flush, which then calls `on_its_way` with the commit that it is in."""
        self._writes.append(write)
        if on_its_way is not None:
            self._on_their_way.append(on_its_way)

    def tell(self, event: Recordable) -> None:
        """Append an event with the next flush; nothing waits for it."""
        self._events.append(event)

    def notify(self, topic: str) -> None:
        """Wake whoever follows `topic`, everywhere, once what was added is on disk."""
        self._topics.add(topic)

    def row_is_due(self, event: EncodedEvent | None = None, *, ends: bool = False) -> None:
        """Save the run's own row, and with it the event that tells of it; `ends` when that is its last state."""
        self._row_is_due = True
        self._row_ends = ends
        if event is not None:
            self._row_events.append(event)

    def follow(self, saving: asyncio.Future[None]) -> None:
        """The run's row is being inserted by `saving`."""
        self._row_on_its_way = self._last = saving
        saving.add_done_callback(self._saved)

    def flush(self) -> None:
        """Hand everything to the group commit."""
        if self._holder is None:
            return
        sends_row = self._row_is_due and self._row_on_its_way is None
        if sends_row:
            self._writes.append(Write(UPDATE_RUN, self._holder.row()))
            self._row_is_due = False
            self._events += self._row_events
            self._row_events = []
        if not self._writes and not self._events:
            return
        writes, events, topics = self._writes, self._events, self._topics
        self._writes, self._events, self._topics = [], [], set()
        try:
            saving = self._hand_over(writes, events, topics)
        except CommitFailed as error:
            self._holder.on_lost(error)
            return
        if writes:
            self._last, self._after = saving, []
        if sends_row:
            self._row_on_its_way = saving
        saving.add_done_callback(self._saved)
        if sends_row and self._row_ends:
            self._holder.on_ended(saving)
        if self._on_their_way:
            on_their_way, self._on_their_way = self._on_their_way, []
            for is_on_its_way in on_their_way:
                is_on_its_way(saving)

    def _hand_over(
        self, writes: list[Write], events: list[Recordable], topics: Collection[str]
    ) -> asyncio.Future[None]:
        after = self._after if self._last is None else [*self._after, self._last]
        try:
            return self._database.write(*writes, events=events, fence=self._fence, topics=tuple(topics), after=after)
        except CommitQueueFull as error:
            raise CommitFailed(str(error)) from error

    def _saved(self, saving: asyncio.Future[None]) -> None:
        holder = self._holder
        if holder is None:
            return
        error = asyncio.CancelledError() if saving.cancelled() else saving.exception()
        if error is not None:
            holder.on_lost(error)
            return
        if saving is self._row_on_its_way:
            self._row_on_its_way = None
            if self._row_is_due:
                self.flush()
        if saving is self._last:
            self._last = None
            if self.is_durable:
                holder.on_durable()
