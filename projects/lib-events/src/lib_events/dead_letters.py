"""Events that could not be handled: put aside with the reason, so that they hold nothing else up."""

import traceback

from sqlalchemy.dialects import postgresql, sqlite

from lib_events.clock import SystemClock
from lib_events.database import Connection
from lib_events.tables import dead_letters

STACK_LIMIT = 20_000  # characters kept of a stack


def bury(
    connection: Connection, durable: str, position: int, event_id: str, error: Exception, *, attempts: int
) -> None:
    """Put an event aside; burying it again changes nothing."""
    insert = sqlite.insert if connection.dialect_name == "sqlite" else postgresql.insert
    row = {
        "durable": durable,
        "position": position,
        "event_id": event_id,
        "error": f"{type(error).__name__}: {error}",
        "stack": "".join(traceback.format_exception(error))[-STACK_LIMIT:],
        "attempts": attempts,
        "dead_at": SystemClock().micros(),
    }
    connection.execute(insert(dead_letters).values(row).on_conflict_do_nothing())
