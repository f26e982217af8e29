"""How full the buckets are from which runs of each key of a queue begin: durable, and only those that are not full.

Who changes them holds the queue's row, so that two workers cannot take the same token.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, and_, delete, func, literal, select

from lib_events.database import Connection, insert_into
from lib_workflows.authoring.queue import Rate
from lib_workflows.tables import key_buckets

FORGOTTEN = 1_000  # buckets at once


def full_at_of(queue: str, key: ColumnElement[str | None]) -> ScalarSelect[int]:
    """When the bucket of a key is full; NULL where it is known to be."""
    of_key = key_buckets.c.key == func.coalesce(literal("=").concat(key), "")
    return select(key_buckets.c.full_at).where(key_buckets.c.queue == queue, of_key).scalar_subquery()


def take(connection: Connection, queue: str, rate: Rate, begun: Mapping[str | None, int], now: int) -> None:
    """Take a token for each run that has begun, by key, and forget some of the buckets that are full again."""
    texts = {_text(key): size for key, size in begun.items()}
    here = and_(key_buckets.c.queue == queue, key_buckets.c.key.in_(texts))
    known = {row.key: row.full_at for row in connection.execute(select(key_buckets).where(here))}
    rows: list[dict[str, Any]] = [
        {"queue": queue, "key": text, "full_at": rate.full_after(size, known.get(text, 0), now)}
        for text, size in texts.items()
    ]
    insertion = insert_into(connection, key_buckets)
    newer = {"full_at": insertion.excluded.full_at}
    connection.execute(insertion.on_conflict_do_update(index_elements=["queue", "key"], set_=newer), rows)
    # More than one claim makes, so that they come to an end.
    full = and_(key_buckets.c.queue == queue, key_buckets.c.full_at <= now)
    some = select(key_buckets.c.key).where(full).limit(FORGOTTEN)
    connection.execute(delete(key_buckets).where(key_buckets.c.queue == queue, key_buckets.c.key.in_(some)))


def clear(connection: Connection, queue: str) -> None:
    """Let all buckets of a queue be full."""
    connection.execute(delete(key_buckets).where(key_buckets.c.queue == queue))


def _text(key: str | None) -> str:
    """As a row has it: that a run has no key is another thing than an empty one."""
    return "" if key is None else f"={key}"
