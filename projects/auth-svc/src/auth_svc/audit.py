"""The audit: who did what to whom, when and from where; written in the transaction that does it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, insert, select

from auth_svc import tables
from lib_events.database import Connection


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, at which time (microseconds since the epoch) and from which address."""

    at: int
    who: str | None = None
    address: str | None = None


def record(connection: Connection, actor: Actor, what: str, *, about: str | None = None, **detail: Any) -> None:
    """Write one line; `detail` is JSON and never holds a secret."""
    connection.execute(
        insert(tables.audit).values(
            at=actor.at, who=actor.who, what=what, about=about, address=actor.address, detail=json.dumps(detail)
        )
    )


def page(connection: Connection, before: int | None, limit: int) -> Sequence[Row[Any]]:
    """Return up to `limit` lines, newest first, older than the one numbered `before`."""
    query = select(tables.audit).order_by(tables.audit.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(tables.audit.c.id < before)
    return connection.execute(query).all()
