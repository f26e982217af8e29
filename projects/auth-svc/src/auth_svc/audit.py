"""The audit: who did what to whom, when and from where; written in the transaction that does it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, insert, select

from auth_svc import tables
from lib_events.clock import to_datetime
from lib_events.database import Connection
from lib_events.prepared import Prepared

AUDIT_TOPIC = "audit"
RECORD = Prepared(insert(tables.audit).inline(), columns=("at", "who", "what", "about", "address", "detail"))


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, at which time (microseconds since the epoch) and from which address."""

    at: int
    who: str | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines to show: all whose fields are these; None is any."""

    what: str | None = None
    who: str | None = None
    about: str | None = None


def record(connection: Connection, actor: Actor, what: str, *, about: str | None = None, **detail: Any) -> None:
    """Write one line; `detail` is JSON and never holds a secret."""
    kept = json.dumps(detail, allow_nan=False)  # what is no JSON could never be chained
    connection.change(RECORD, at=actor.at, who=actor.who, what=what, about=about, address=actor.address, detail=kept)
    connection.notify(AUDIT_TOPIC)  # whoever chains the lines


def record_all(connection: Connection, actor: Actor, what: str, about: Sequence[str], **detail: Any) -> None:
    """Write one line for each of these."""
    if not about:
        return
    line = {"at": actor.at, "who": actor.who, "what": what, "address": actor.address, "detail": json.dumps(detail)}
    connection.execute(insert(tables.audit).inline(), [line | {"about": each} for each in about])
    connection.notify(AUDIT_TOPIC)


def page(connection: Connection, wanted: Wanted, before: int | None, limit: int) -> Sequence[Row[Any]]:
    """Return up to `limit` lines, newest first, older than the one numbered `before`."""
    query = select(tables.audit).order_by(tables.audit.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(tables.audit.c.id < before)
    for name in ("what", "who", "about"):
        if (value := getattr(wanted, name)) is not None:
            query = query.where(tables.audit.c[name] == value)
    return connection.execute(query).all()


def content(row: Row[Any], position: int | None) -> dict[str, Any]:
    """Return a line as the API shows it and the chain hashes it: these fields and no others, for ever."""
    return {
        "id": row.id,
        "position": position,
        "at": to_datetime(row.at).isoformat(),
        "who": row.who,
        "what": row.what,
        "about": row.about,
        "address": row.address,
        "detail": json.loads(row.detail),
    }
