"""What a subscription is: a handler, the events it wants, and how often it is tried.

The handler's parameters say what it is. `def bill(connection, order)` is a transaction function: what it writes, the
events it publishes and its place in the log are one commit, so it handles each event exactly once. `async def
mail(order)`, or `def mail(order)` in a thread, has its effects elsewhere: it handles each event at least once, and
`current_delivery().idempotency_key` tells the other side that it is the same one again.
"""

import asyncio
import contextvars
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, get_args, get_origin, overload

from lib_events.database import Connection
from lib_events.event import Event, EventType, current_cause
from lib_events.event_log import Cursor

logger = logging.getLogger(__name__)

ATTEMPTS = 5
TIMEOUT = timedelta(seconds=60)

type Kind = Literal["transaction", "async", "thread"]
type Start = Literal["beginning", "now"] | datetime | Cursor
type Handler[T] = (
    Callable[[Connection, T], None]
    | Callable[[T], Awaitable[None]]
    | Callable[[T], None]
    | Callable[[Connection, list[T]], None]
    | Callable[[list[T]], Awaitable[None]]
    | Callable[[list[T]], None]
)


class GiveUp(Exception):
    """Raised by a handler: trying again is of no use, put the event aside now."""


class TryLater(Exception):
    """Raised by a handler: go on with other events and try this one again in `seconds`, also after a restart."""

    def __init__(self, reason: str, *, seconds: float) -> None:
        super().__init__(reason)
        self.seconds = seconds


class HandlerBroke(Exception):
    """A handler has raised what is no error: it ended its program, or something that it waited for was cancelled."""


class NotNow(Exception):
    """Raised by a handler that has not tried at all: call it again in `seconds`; it counts as no attempt."""

    def __init__(self, *, seconds: float) -> None:
        super().__init__(f"not for another {seconds:.1f} s")
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Delivery:
    """What is being handled: an event, or the first one of a batch, and how often it was tried, from 1."""

    durable: str
    event: Event
    attempt: int

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt at this event by this subscription, and for no other."""
        return f"{self.durable}:{self.event.source}:{self.event.id}"


_current_delivery: ContextVar[Delivery] = ContextVar("current_delivery")


def current_delivery() -> Delivery:
    """Return what the running handler is handling; raises `LookupError` outside of one."""
    return _current_delivery.get()


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A handler with its wishes; `subscribe` makes it, `Subscriptions` runs it."""

    handler: Callable[..., Any]
    kind: Kind
    takes_payload: bool  # else the event itself
    takes_list: bool
    types: tuple[str, ...]
    event_types: Mapping[str, EventType[Any]]
    durable: str
    concurrency: int
    batch: int
    key: Callable[[Event], object] | None
    start: Start
    max_age: timedelta | None
    attempts: int
    timeout: timedelta

    def __call__(self, connection: Connection, event: Event) -> None:
        """Handle one event in a transaction."""
        self.handle_in(connection, [event], attempt=1)

    def handle_in(self, connection: Connection, events: Sequence[Event], *, attempt: int) -> None:
        """Call a transaction handler."""
        with self._delivering(events, attempt):
            answer = self.handler(connection, self._argument(events))
        if inspect.isawaitable(answer):
            raise TypeError(f"{self.durable}: a handler that takes a connection must be a plain function")

    async def handle(self, events: Sequence[Event], threads: ThreadPoolExecutor, *, attempt: int) -> None:
        """Call a handler that has its effects elsewhere; raises `TimeoutError`."""
        with self._delivering(events, attempt):
            argument = self._argument(events)
            if self.kind == "async":
                async with asyncio.timeout(self.timeout.total_seconds()):
                    await self.handler(argument)
                return
            context = contextvars.copy_context()
        work = asyncio.get_running_loop().run_in_executor(threads, context.run, self._call, argument)
        await asyncio.wait([work], timeout=self.timeout.total_seconds())
        if not work.done():
            # A thread cannot be stopped: trying again beside it would do the work twice, so it is waited for.
            logger.error("%s takes longer than %s over event %s", self.durable, self.timeout, events[0].id)
        await work

    def _call(self, argument: Any) -> None:
        """Call a handler in its thread."""
        with _only_errors(self.durable):
            self.handler(argument)

    def _argument(self, events: Sequence[Event]) -> Any:
        found = [event.payload(self.event_types[event.type]) if self.takes_payload else event for event in events]
        return found if self.takes_list else found[0]

    @contextmanager
    def _delivering(self, events: Sequence[Event], attempt: int) -> Iterator[None]:
        """Whatever the handler does is caused by the event; by the first one of a batch."""
        cause = current_cause.set(events[0].cause)
        delivery = _current_delivery.set(Delivery(self.durable, events[0], attempt))
        try:
            with _only_errors(self.durable):
                yield
        finally:
            _current_delivery.reset(delivery)
            current_cause.reset(cause)


@contextmanager
def _only_errors(durable: str) -> Iterator[None]:
    """Let a handler fail by errors alone: what else it raises would end its lane, or the process, for good.

    A cancellation of whoever runs it is none of the handler's.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as broken:
        if isinstance(broken, asyncio.CancelledError) and _is_being_cancelled():
            raise
        raise HandlerBroke(f"the handler of {durable} must raise an error to fail, got {broken!r}") from broken


def _is_being_cancelled() -> bool:
    """Whether somebody ends the task we are in; in a thread there is none."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return False
    return task is not None and task.cancelling() > 0


@overload
def subscribe[T](
    *types: EventType[T],
    durable: str,
    concurrency: int = 1,
    batch: int = 1,
    key: Callable[[Event], object] | None = None,
    start: Start = "beginning",
    max_age: timedelta | None = None,
    attempts: int = ATTEMPTS,
    timeout: timedelta = TIMEOUT,
) -> Callable[[Handler[T] | Handler[Event]], Subscription]: ...


@overload
def subscribe(
    *types: EventType[Any] | str,
    durable: str,
    concurrency: int = 1,
    batch: int = 1,
    key: Callable[[Event], object] | None = None,
    start: Start = "beginning",
    max_age: timedelta | None = None,
    attempts: int = ATTEMPTS,
    timeout: timedelta = TIMEOUT,
) -> Callable[[Handler[Event]], Subscription]: ...


def subscribe(
    *types: EventType[Any] | str,
    durable: str,
    concurrency: int = 1,
    batch: int = 1,
    key: Callable[[Event], object] | None = None,
    start: Start = "beginning",
    max_age: timedelta | None = None,
    attempts: int = ATTEMPTS,
    timeout: timedelta = TIMEOUT,
) -> Callable[[Callable[..., Any]], Subscription]:
    """Make a handler a subscription to `types` (event types, or names and patterns such as `shop.*`).

    `durable` names its place in the log and must stay the same over releases; under a new name everything is handled
    again from `start`. With `concurrency` 1 events are handled in order, and a failing one holds up those behind it
    until it succeeds or, after `attempts`, is put aside as a dead letter; with more, so many at once, in order only
    among those with the same `key(event)`. A handler that takes a list gets up to `batch` events at once. Events older
    than `max_age` are passed over. `timeout` bounds an async handler; a thread that takes longer is waited for.
    """
    if not types:
        raise ValueError(f"subscription {durable!r} must name an event type, got none; '*' takes all")
    if min(concurrency, batch, attempts) < 1:
        raise ValueError(f"concurrency, batch and attempts of {durable!r} must be at least 1")
    event_types = {kind.name: kind for kind in types if isinstance(kind, EventType)}
    names = tuple(kind if isinstance(kind, str) else kind.name for kind in types)

    def decorate(handler: Callable[..., Any]) -> Subscription:
        kind, wanted, takes_list = _read_signature(handler, durable)
        takes_payload = wanted is not Event
        if takes_payload and len(event_types) < len(names):
            raise TypeError(f"handler of {durable!r} must take an Event, for names and patterns promise no payload")
        if batch > 1 and not takes_list:
            raise TypeError(f"handler of {durable!r} must take a list to get up to {batch} events at once")
        return Subscription(
            handler=handler,
            kind=kind,
            takes_payload=takes_payload,
            takes_list=takes_list,
            types=names,
            event_types=event_types,
            durable=durable,
            concurrency=concurrency,
            batch=batch,
            key=key,
            start=start,
            max_age=max_age,
            attempts=attempts,
            timeout=timeout,
        )

    return decorate


def _read_signature(handler: Callable[..., Any], durable: str) -> tuple[Kind, Any, bool]:
    """Return how a handler runs, what it wants of an event (`Event`, or a payload) and whether in lists."""
    signature = inspect.signature(handler, eval_str=True)
    parameters = [found for found in signature.parameters.values() if found.default is found.empty]
    is_async = inspect.iscoroutinefunction(handler)
    if len(parameters) not in {1, 2} or (len(parameters) == 2 and is_async):
        raise TypeError(
            f"handler of {durable!r} must be def f(connection, event), async def f(event) or def f(event), "
            f"got {'async ' * is_async}{handler!r}{signature}"
        )
    wanted = parameters[-1].annotation
    takes_list = wanted is list or get_origin(wanted) is list
    if takes_list:
        wanted = next(iter(get_args(wanted)), Event)
    kind: Kind = "transaction" if len(parameters) == 2 else "async" if is_async else "thread"
    return kind, Event if wanted in {Any, inspect.Parameter.empty} else wanted, takes_list
