"""Where a subscription stands in the log: everything up to a position is handled, and beyond it some single events."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, bindparam, delete, func, select, update

from lib_events.clock import SystemClock, to_micros
from lib_events.database import Connection, insert_into
from lib_events.event_log import Cursor, check_cursor, head
from lib_events.statement import Statement, Write
from lib_events.subscription import Start
from lib_events.tables import events, handled_events, subscription_cursors

MARK_HANDLED = Statement.load("lib_events", "mark_handled", {"durable": "text", "position": "bigint"})


# Made once: each event that is handled in a transaction moves a place.
MOVE = (
    update(subscription_cursors)
    .where(
        subscription_cursors.c.durable == bindparam("of_durable"),
        subscription_cursors.c.position == bindparam("from_position"),
    )
    .values(position=bindparam("to_position"), updated_at=bindparam("moved_at"))
)
FORGET_MARKS = delete(handled_events).where(
    handled_events.c.durable == bindparam("of_durable"), handled_events.c.position <= bindparam("to_position")
)


class PlaceLost(Exception):
    """Another process has gone on from here."""


@dataclass(frozen=True, slots=True)
class Place:
    """The place of one subscription; its methods are transaction functions."""

    durable: str
    start: Start

    def begin(self, connection: Connection) -> tuple[int, set[int]]:
        """Return the position up to which all is handled, and those handled beyond it; the first time, make it."""
        query = select(subscription_cursors.c.position).where(self._mine)
        position: int | None = connection.scalar(query)
        if position is None:
            row = {"durable": self.durable, "position": self._first(connection), "updated_at": SystemClock().micros()}
            connection.execute(insert_into(connection, subscription_cursors).values(row).on_conflict_do_nothing())
            position = int(connection.scalar(query))
        beyond = select(handled_events.c.position).where(handled_events.c.durable == self.durable)
        return position, set(connection.scalars(beyond.where(handled_events.c.position > position)))

    def move(self, connection: Connection, before: int, after: int, *, marked: bool = True) -> None:
        """Say that all is handled up to `after`; the row's lock keeps others out. Raises `PlaceLost`.

        `marked`: single events beyond `before` may have been marked; those are not needed any more.
        """
        values = {"from_position": before, "to_position": after, "moved_at": SystemClock().micros()}
        if connection.execute(MOVE, {"of_durable": self.durable, **values}).rowcount != 1:
            raise PlaceLost
        if marked:
            connection.execute(FORGET_MARKS, {"of_durable": self.durable, "to_position": after})

    def mark(self, connection: Connection, positions: Sequence[int]) -> None:
        """Say that single events beyond the place are handled, each once; raises `PlaceLost`."""
        place = select(subscription_cursors.c.position).where(self._mine).with_for_update(read=True)
        if int(connection.scalar(place)) >= min(positions):
            raise PlaceLost
        rows = [{"durable": self.durable, "position": position} for position in positions]
        marked = connection.execute(insert_into(connection, handled_events).values(rows).on_conflict_do_nothing())
        if marked.rowcount != len(rows):
            raise PlaceLost

    def marks(self, positions: Sequence[int]) -> list[Write]:
        """The hot rows that say so; saying it again changes nothing."""
        return [Write(MARK_HANDLED, (self.durable, position)) for position in positions]

    @property
    def _mine(self) -> ColumnElement[bool]:
        return subscription_cursors.c.durable == self.durable

    def _first(self, connection: Connection) -> int:
        """The position after which a new subscription begins."""
        match self.start:
            case "beginning":
                return 0
            case "now":
                return head(connection).position
            case Cursor() as cursor:
                return check_cursor(connection, cursor)
            case datetime() as moment:
                earlier = select(func.min(events.c.last_position - events.c.count))
                found: int | None = connection.scalar(earlier.where(events.c.time >= to_micros(moment)))
                return head(connection).position if found is None else found
