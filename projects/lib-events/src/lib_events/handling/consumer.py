"""Runs one subscription: a reader takes events from the log, lanes call the handler, a window knows what is unfinished.

A transaction handler of concurrency 1 gets many events in one transaction, which also moves its place. With more
lanes each transaction marks its own events as handled, and the place follows behind; so it does for handlers that
have their effects elsewhere. A new process goes on from the place and repeats nothing that is marked. What keeps
failing is put aside; what somebody redrives, and what a handler wants later, is handled beside the rest.
"""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import timedelta
from itertools import batched, count

from lib_events.clock import MICROSECOND, Clock, to_micros
from lib_events.database import Connection, Database, is_database_failure
from lib_events.event_filter import Wanted
from lib_events.event_log import PLACED_TOPIC, Page, Placed
from lib_events.handling.dead_letters import Burial, bury, defer
from lib_events.handling.place import Place, PlaceLost
from lib_events.handling.redriver import Redriver
from lib_events.handling.retries import Retries, Sleep, Stopping
from lib_events.handling.window import Window
from lib_events.lifecycle import Loop
from lib_events.log.reader import read_page
from lib_events.subscription import Subscription, TryLater

logger = logging.getLogger(__name__)

TOUCH = timedelta(hours=1)  # so often a place says that it is somebody's, also where it does not move
POLL_SECONDS = 5.0  # only for what a lost notification would have told
PAGE_ROWS = 200
SKIP_LIMIT = 1_000  # positions without an event for us, after which the place is written down anyway
DRAIN_SECONDS = 10.0  # for handlers that run when we stop

type Portion = Sequence[Placed]


class Consumer(Loop):
    """Runs a subscription where this process leads it."""

    def __init__(self, database: Database, subscription: Subscription, *, clock: Clock, sleep: Sleep) -> None:
        super().__init__(name=f"subscription {subscription.durable}")
        self.durable = subscription.durable
        self._database = database
        self._subscription = subscription
        self._clock = clock
        self._wanted = Wanted(types=subscription.types)
        self._place = Place(subscription.durable, subscription.start)
        self._is_transaction = subscription.kind == "transaction"
        self._in_order = self._is_transaction and subscription.concurrency == 1
        self._portion_limit = PAGE_ROWS if self._in_order else subscription.batch
        self._threads: ThreadPoolExecutor  # of the present run
        self._window = Window(0)
        self._lanes: list[asyncio.Queue[Placed]] = []
        self._written = 0  # the place, as it was last written down …
        self._written_at = 0  # … and when, unless a handler's transaction did
        self._due = asyncio.Event()  # it is worth a commit now
        self._writing = asyncio.Lock()  # whoever writes the place holds it
        self._ahead = False  # something was handled that the written place does not tell
        self._marked_until = 0  # an earlier life that handled side by side has marked single events up to here
        self._failing: int | None = None  # in order: index in its portion of the event whose handler runs
        self._stop = asyncio.Event()
        self._sleep = sleep
        self._retries = Retries(subscription, sleep=sleep, stop=self._stop)

    @property
    def position(self) -> int:
        """Everything up to here is handled or put aside."""
        return self._window.position

    def told_to_stop(self) -> float:
        """Begin nothing new; returns for how many seconds to wait for handlers that run."""
        self._stop.set()
        for lane in self._lanes:
            lane.shutdown(immediate=True)
        return DRAIN_SECONDS if self._lanes else 0.0

    async def run(self) -> None:
        """Wait to lead, then consume until told to stop or until another process goes on from here."""
        self._stop.clear()
        async with self._database.leading(self.name):
            self._threads = ThreadPoolExecutor(self._subscription.concurrency, thread_name_prefix=self.durable)
            unsubscribe = self._database.on_notify(PLACED_TOPIC, self.wake)
            try:
                while not self._stop.is_set():
                    with suppress(PlaceLost):
                        await self._consume()
            finally:
                unsubscribe()
                self._threads.shutdown(wait=False)  # one that still runs was waited for in vain

    async def _consume(self) -> None:
        self._written, handled = await self._database.transact(self._place.begin)
        self._window, self._ahead = Window(self._written), bool(handled)
        self._marked_until = max(handled, default=0)
        lanes = self._subscription.concurrency if self._subscription.key else 1
        self._lanes = [asyncio.Queue() for _ in range(lanes)]
        redriver = Redriver(
            self._database,
            self._subscription,
            self._threads,
            self._retries,
            clock=self._clock,
            sleep=self._sleep,
            stop=self._stop,
        )
        try:
            async with asyncio.TaskGroup() as group:
                others = [self._read_on(handled), self._keep_place()]
                tasks = [group.create_task(other) for other in others]
                workers = [self._work(self._lanes[index % lanes]) for index in range(self._subscription.concurrency)]
                await asyncio.wait([group.create_task(work) for work in (*workers, redriver.run())])
                async with self._writing:  # one that is cut off while it writes the place leaves us not knowing it
                    for task in tasks:
                        task.cancel()
            await self._write_place()
        finally:
            self._lanes = []

    async def _read_on(self, handled: set[int]) -> None:
        with suppress(asyncio.QueueShutDown):
            while True:
                page = await self._read(self._window.reached)
                size = page.size // max(1, len(page.events))
                for placed in page.events:
                    if placed.position not in handled:
                        await self._window.add(placed.position, size)
                        await self._assign(placed)
                self._window.reach(page.position)
                self._see_to_place()
                if page.position >= page.head.position:
                    await self.pause(POLL_SECONDS)

    async def _read(self, position: int) -> Page:
        page = await read_page(self._database, position, self._wanted, limit=PAGE_ROWS)
        if (max_age := self._subscription.max_age) is None:
            return page
        oldest = self._clock.micros() - max_age // MICROSECOND
        fresh = [placed for placed in page.events if to_micros(placed.event.time) >= oldest]
        return replace(page, events=fresh)

    async def _assign(self, placed: Placed) -> None:
        """Give an event to the lane of its key."""
        try:
            key = self._subscription.key(placed.event) if self._subscription.key else None
            lane = self._lanes[hash(key) % len(self._lanes)]
        except Exception as error:  # noqa: BLE001 - the key function is the user's, like the handler
            await self._put_aside(placed, error, attempts=1)
        else:
            lane.put_nowait(placed)

    async def _work(self, lane: asyncio.Queue[Placed]) -> None:
        with suppress(asyncio.QueueShutDown, Stopping):
            while True:
                portion = [await lane.get()]
                while len(portion) < self._portion_limit and not lane.empty():
                    portion.append(lane.get_nowait())
                await self._handle(portion)

    async def _handle(self, portion: Portion) -> None:
        """Handle a portion; when it fails, less of it at once, and a single event until it is given up."""
        for attempt in count(1):
            try:
                await self._retries.when_ready(self._attempt, portion, attempt)
            except (PlaceLost, Stopping):
                raise
            except Exception as error:
                if is_database_failure(error):
                    raise
                if len(portion) > 1:
                    for part in self._split(portion):
                        await self._handle(part)
                elif self._retries.may_retry(error, attempt):
                    await self._retries.wait(portion[0].event, error, attempt)
                    continue
                else:
                    await self._put_aside(portion[0], error, attempts=attempt)
            return

    async def _attempt(self, portion: Portion, attempt: int) -> None:
        if self._is_transaction:
            async with self._writing if self._in_order else nullcontext():
                await self._database.transact(self._handle_in, portion, attempt)
                self._written = portion[-1].position if self._in_order else self._written
        else:
            events = [placed.event for placed in portion]
            await self._subscription.handle(events, self._threads, attempt=attempt)
        self._finish(portion)

    def _handle_in(self, connection: Connection, portion: Portion, attempt: int) -> None:
        """Transaction function: the place first, for its lock keeps other processes out."""
        self._failing = None
        self._say_handled(connection, portion)
        batch = self._subscription.batch
        for index, placed in enumerate(batched((placed.event for placed in portion), batch, strict=False)):
            self._failing = index * batch
            self._subscription.handle_in(connection, placed, attempt=attempt)
        self._failing = None

    def _say_handled(self, connection: Connection, portion: Portion) -> None:
        if self._in_order:
            marked = self._written < self._marked_until
            self._place.move(connection, self._written, portion[-1].position, marked=marked)
        else:
            self._place.mark(connection, [placed.position for placed in portion])

    def _split(self, portion: Portion) -> tuple[Portion, Portion]:
        half = len(portion) // 2
        if not self._in_order or self._failing is None:
            # All handlers were done and their rows were refused: whose they are, halving will show.
            index = half
        else:
            index = self._failing or min(self._subscription.batch, half)
        return portion[:index], portion[index:]

    async def _put_aside(self, placed: Placed, error: Exception, *, attempts: int) -> None:
        if not isinstance(error, TryLater):
            logger.error("%s gives up event %s: %s", self.name, placed.event.id, error, exc_info=error)
        async with self._writing if self._in_order else nullcontext():
            await self._database.transact(self._bury, placed, error, attempts)
            self._written = placed.position if self._in_order else self._written
        self._finish([placed])

    def _bury(self, connection: Connection, placed: Placed, error: Exception, attempts: int) -> None:
        if self._is_transaction:
            self._say_handled(connection, [placed])
        burial = Burial.of(placed.event, durable=self.durable, position=placed.position, attempts=attempts)
        if isinstance(error, TryLater):
            defer(connection, burial, error, self._clock.micros())
        else:
            bury(connection, burial, error)

    def _finish(self, portion: Portion) -> None:
        beyond = self._window.finish([placed.position for placed in portion])
        if not self._is_transaction and beyond:
            self._database.write(*self._place.marks(beyond))  # should it fail, they are handled once more
        self._ahead = not self._in_order
        self._see_to_place()

    def _see_to_place(self) -> None:
        """Wake who writes it down, but not for every move: most events are for others."""
        if self._is_due():
            self._due.set()

    def _is_due(self) -> bool:
        """Whether the place tells too little of what was handled, is far behind, or was not written for long."""
        behind = max(self._window.position, self._written) - self._written
        is_old = self._clock.micros() - self._written_at > TOUCH // MICROSECOND
        return behind >= (1 if self._ahead else SKIP_LIMIT) or is_old

    async def _keep_place(self) -> None:
        """Write down the place whenever it is worth it; many moves while one is written are one.

        And now and then that it is there: what lies behind a place that nobody uses is not kept for it.
        """
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(TOUCH.total_seconds()):
                    await self._due.wait()
            self._due.clear()
            await self._write_place()

    async def _write_place(self) -> None:
        async with self._writing:
            if not self._is_due():
                return
            position, ahead = max(self._window.position, self._written), self._ahead
            self._ahead = False
            try:
                await self._database.transact(self._place.move, self._written, position)
            except BaseException:
                self._ahead = ahead  # nobody knows whether it was written
                raise
            self._written, self._written_at = position, self._clock.micros()
