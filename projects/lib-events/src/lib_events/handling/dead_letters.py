"""Events that could not be handled: put aside with the reason, so that they hold nothing else up.

A dead letter rests until somebody has the event handled again (`redrive`, as it is or with other data) or lets it go
(`discard`). Handled with success it is gone; failing again, it rests again with the new reason. An event whose handler
wants it later (`TryLater`) waits among them, but is dead to nobody until its handler gives it up.
"""

import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel
from sqlalchemy import Row, delete, func, select, update

from lib_events.clock import SystemClock
from lib_events.database import Connection, insert_into
from lib_events.event import Event, EventType
from lib_events.subscription import TryLater
from lib_events.tables import dead_letters
from lib_events.texts import fit, message_of

STACK_LIMIT = 20_000  # characters kept of a stack
SECOND = 1_000_000  # microseconds
REDRIVE_TOPIC = "redrive"
OWN_TYPES = "evs.dead-letter."


class DeadLetterTold(BaseModel):
    """Which event, of which subscription, and what was wrong with it."""

    durable: str
    event_id: str
    event_type: str | None
    error: str


DEAD_LETTER_BURIED = EventType("evs.dead-letter.buried", DeadLetterTold)
DEAD_LETTER_REDRIVEN = EventType("evs.dead-letter.redriven", DeadLetterTold)
DEAD_LETTER_DISCARDED = EventType("evs.dead-letter.discarded", DeadLetterTold)
EVENT_TYPES = (DEAD_LETTER_BURIED, DEAD_LETTER_REDRIVEN, DEAD_LETTER_DISCARDED)


class DeadLetterRefused(Exception):
    """The dead letter cannot be treated that way; the text says what to do."""

    def __init__(self, reason: Literal["unknown", "under_way", "no_event"], detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Burial:
    """What to put aside: `body` is what can be handled again, None where what came was no event."""

    durable: str
    position: int
    event_id: str
    event_type: str | None
    body: bytes | None
    attempts: int

    @classmethod
    def of(cls, event: Event, *, durable: str, position: int, attempts: int) -> "Burial":
        """Put aside an event of the log."""
        return cls(durable, position, event.id, event.type, event.to_json(), attempts)


def bury(connection: Connection, burial: Burial, error: Exception) -> None:
    """Transaction function: put an event aside and tell of it; burying it again changes nothing."""
    row = _row(burial, error)
    if _add(connection, row):
        _tell_buried(connection, row)


def defer(connection: Connection, burial: Burial, error: TryLater, now: int) -> None:
    """Transaction function: keep an event until its handler wants it again; doing so again changes nothing."""
    due = {"redriven_at": _due(error, now), "deferred_attempts": burial.attempts}
    _add(connection, _row(burial, error) | due)
    connection.notify(REDRIVE_TOPIC)


def redrive(connection: Connection, letter_id: int, edit: Callable[[Event], Event] | None = None) -> None:
    """Transaction function: have the event handled again, or what `edit` makes of it; raises `DeadLetterRefused`."""
    letter = _find(connection, letter_id)
    if letter.redriven_at is not None and letter.redriven_at <= SystemClock().micros():
        raise DeadLetterRefused("under_way", f"dead letter {letter_id} is being handled again; look again shortly")
    if letter.body is None:
        raise DeadLetterRefused("no_event", f"dead letter {letter_id} holds no event to handle again; discard it")
    body = letter.body if edit is None else edit(Event.from_json(letter.body)).to_json()
    values = {"body": body, "redriven_at": SystemClock().micros()}
    connection.execute(update(dead_letters).where(dead_letters.c.id == letter_id).values(values))
    connection.notify(REDRIVE_TOPIC)
    _publish(connection, DEAD_LETTER_REDRIVEN, _told_by(letter))


def discard(connection: Connection, letter_id: int) -> None:
    """Transaction function: let the event go; raises `DeadLetterRefused`.

    Also one that is redriven: whoever should handle it may never run again.
    """
    letter = _find(connection, letter_id)
    connection.execute(delete(dead_letters).where(dead_letters.c.id == letter_id))
    _publish(connection, DEAD_LETTER_DISCARDED, _told_by(letter))


def redriven(connection: Connection, durable: str, now: int) -> Sequence[Row[Any]]:
    """What is due to be handled again by a subscription, oldest first."""
    wanted = (dead_letters.c.durable == durable, dead_letters.c.redriven_at <= now)
    return connection.execute(select(dead_letters).where(*wanted).order_by(dead_letters.c.id).limit(100)).all()


def seconds_to_next(connection: Connection, durable: str, now: int) -> float:
    """In how many seconds something else is due; infinite when nothing waits."""
    query = select(func.min(dead_letters.c.redriven_at)).where(dead_letters.c.durable == durable)
    due: int | None = connection.scalar(query)
    return math.inf if due is None else max(0.0, (due - now) / SECOND)


def settle(connection: Connection, letter_id: int) -> bool:
    """Transaction function: the event is handled; returns False when somebody else was first."""
    wanted = (dead_letters.c.id == letter_id, dead_letters.c.redriven_at.is_not(None))
    return connection.execute(delete(dead_letters).where(*wanted)).rowcount == 1


def bury_again(connection: Connection, letter_id: int, error: Exception, attempts: int, now: int) -> None:
    """Transaction function: it failed again, after so many more attempts; it rests, or waits where that is wanted."""
    values = _told_of(error) | {"attempts": dead_letters.c.attempts + attempts}
    if isinstance(error, TryLater):
        values |= {"redriven_at": _due(error, now), "deferred_attempts": dead_letters.c.deferred_attempts + attempts}
    else:
        values |= {"redriven_at": None, "deferred_attempts": 0}
    mine = dead_letters.c.id == letter_id
    letter = connection.execute(select(dead_letters).where(mine)).first()
    connection.execute(update(dead_letters).where(mine).values(values))
    if letter is not None and letter.deferred_attempts and not isinstance(error, TryLater):
        _tell_buried(connection, {**letter._mapping, "error": values["error"]})


def _find(connection: Connection, letter_id: int) -> Row[Any]:
    letter = connection.execute(select(dead_letters).where(dead_letters.c.id == letter_id).with_for_update()).first()
    if letter is None:
        raise DeadLetterRefused("unknown", f"there is no dead letter {letter_id}; it may have been handled meanwhile")
    return letter


def _row(burial: Burial, error: Exception) -> dict[str, Any]:
    return {
        "durable": burial.durable,
        "position": burial.position,
        "event_id": burial.event_id,
        "type": burial.event_type,
        "body": burial.body,
        "attempts": burial.attempts,
        **_told_of(error),
    }


def _add(connection: Connection, row: Mapping[str, Any]) -> bool:
    return connection.execute(insert_into(connection, dead_letters).values(row).on_conflict_do_nothing()).rowcount == 1


def _due(error: TryLater, now: int) -> int:
    return now + round(error.seconds * SECOND)


def _tell_buried(connection: Connection, row: Mapping[str, Any]) -> None:
    # A subscription to everything must not be told of its own failure to be told.
    if not (row["type"] or "").startswith(OWN_TYPES):
        told = DeadLetterTold(
            durable=row["durable"], event_id=row["event_id"], event_type=row["type"], error=row["error"]
        )
        _publish(connection, DEAD_LETTER_BURIED, told)


def _told_by(letter: Row[Any]) -> DeadLetterTold:
    return DeadLetterTold(durable=letter.durable, event_id=letter.event_id, event_type=letter.type, error=letter.error)


def _told_of(error: Exception) -> dict[str, Any]:
    """What is kept of an error, whatever its text and its class are: an event that cannot be put aside holds all up."""
    return {
        "error": f"{type(error).__name__}: {message_of(error)}",
        "stack": fit(_stack_of(error)[-STACK_LIMIT:], STACK_LIMIT),
        "dead_at": SystemClock().micros(),
    }


def _stack_of(error: Exception) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001 - its class and its notes are anybody's code
        return ""


def _publish(connection: Connection, event_type: EventType[DeadLetterTold], told: DeadLetterTold) -> None:
    connection.publish(Event.of(event_type, told, source=connection.source, subject=told.event_id))
