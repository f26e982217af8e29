"""What a service promised: the schema of every event type it has registered, version by version.

Compared at every start, before anything is published or handled; `evolution` says what may follow what.
"""

from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json, to_json
from sqlalchemy import delete, insert, select

from lib_events.clock import SystemClock
from lib_events.contracts.evolution import Incompatibility, incompatibilities
from lib_events.database import Connection, DatabaseError
from lib_events.event import is_reserved
from lib_events.tables import event_contracts, event_log_state, events

type JsonSchema = dict[str, Any]


class ContractBroken(DatabaseError):
    """An event type has changed in a way that its readers, or readers of its old events, could not live with."""

    def __init__(self, event_type: str, version: int, found: list[Incompatibility]) -> None:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        super().__init__(
            f"event type {event_type!r} must stay compatible with version {version} in this database, "
            f"got a version {version + 1} in which {found[0]}{more}; "
            "keep the field as it was, or give the new shape a name of its own"
        )
        self.event_type = event_type
        self.version = version
        self.incompatibilities = found
        self.field = found[0].field


def keep_contracts(connection: Connection, schemas: Mapping[str, JsonSchema]) -> dict[str, int]:
    """Transaction function: compare `schemas` with what is remembered and return the version each type has.

    What only adds optional fields or explains differently is remembered as the next version. A schema that was
    remembered before passes as that version: a release may be rolled back, and processes of two releases may run
    side by side. A type of which no event was ever stored has no readers, and takes any shape. Raises
    `ContractBroken`, and then remembers nothing.
    """
    connection.scalar(select(event_log_state.c.id).with_for_update())  # two processes may start at the same moment
    remembered = _remembered(connection)
    kept = {name: _version(connection, name, schema, remembered.get(name, [])) for name, schema in schemas.items()}
    now = SystemClock().micros()
    new = [
        {"type": name, "version": version, "schema": to_json(schemas[name]).decode(), "kept_at": now}
        for name, (version, is_new) in kept.items()
        if is_new
    ]
    if new:
        connection.execute(insert(event_contracts), new)
    return {name: version for name, (version, _) in kept.items()}


def _version(connection: Connection, name: str, schema: JsonSchema, versions: list[JsonSchema]) -> tuple[int, bool]:
    """The version that a schema is, and whether it is new; forgets those before it that nobody has read."""
    if schema in versions:
        return versions.index(schema) + 1, False
    if versions and (found := incompatibilities(versions[-1], schema)):
        if _has_readers(connection, name):
            raise ContractBroken(name, len(versions), found)
        connection.execute(delete(event_contracts).where(event_contracts.c.type == name))
        return 1, True
    return len(versions) + 1, True


def _has_readers(connection: Connection, name: str) -> bool:
    """Whether an event of the type may have been read: one is in the log, or was; of our own we do not ask."""
    pruned = connection.scalar(select(event_log_state.c.pruned_position))
    stored = select(events.c.sequence).where(events.c.type == name).limit(1)
    return bool(pruned) or is_reserved(name) or connection.scalar(stored) is not None


def _remembered(connection: Connection) -> dict[str, list[JsonSchema]]:
    """The versions of each type, oldest first; they are numbered from 1 without a gap."""
    found: dict[str, list[JsonSchema]] = {}
    query = select(event_contracts.c.type, event_contracts.c.schema)
    for row in connection.execute(query.order_by(event_contracts.c.type, event_contracts.c.version)):
        found.setdefault(row.type, []).append(from_json(row.schema))
    return found
