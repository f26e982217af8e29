"""The tables of the event log, as SQLAlchemy Core describes them.

One row of `events` is one event, or one *segment*: the packed lifecycle events of one commit. Rows are
written without a position; the relay gives positions afterwards, dense and in `sequence` order. A row
covers the positions `last_position - count + 1 … last_position`.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

SEGMENT_TYPE = "evs.run.segment"
metadata = MetaData()
UNPLACED = text("last_position IS NULL")
REDRIVEN = text("redriven_at IS NOT NULL")

# SQLite numbers rows by itself only for INTEGER; PostgreSQL needs 64 bits.
Sequence = BigInteger().with_variant(Integer, "sqlite")

events = Table(
    "events",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("last_position", BigInteger),  # NULL until the relay has placed the row
    Column("count", Integer, nullable=False),  # events in the row: 1, or a segment's
    Column("id", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("subject", Text),
    Column("time", BigInteger, nullable=False),  # microseconds since the epoch, UTC
    Column("correlation", Text),
    Column("imported", Boolean, nullable=False),  # came from another service: never published again
    Column("body", LargeBinary, nullable=False),  # CloudEvents JSON; a JSON batch for a segment
    UniqueConstraint("source", "id", name="events_source_id"),  # the inbox: an event is imported once
    Index("events_last_position", "last_position", unique=True),
    Index("events_unplaced", "sequence", sqlite_where=UNPLACED, postgresql_where=UNPLACED),
    Index("events_type", "type", "last_position"),
    Index("events_subject", "subject", "last_position"),
)

event_log_state = Table(
    "event_log_state",
    metadata,
    Column("id", Integer, primary_key=True),  # always 1
    Column("epoch", Integer, nullable=False),  # bumped by a restore: older cursors are refused
    Column("placed_position", BigInteger, nullable=False),  # the last position given
    Column("published_position", BigInteger, nullable=False),  # acknowledged by the broker up to here
    Column("pruned_position", BigInteger, nullable=False),  # events up to here are no longer kept
)

event_contracts = Table(
    "event_contracts",
    metadata,
    Column("type", Text, primary_key=True),
    Column("version", Integer, primary_key=True),  # 1, 2, …: each only adds to the one before
    Column("schema", Text, nullable=False),  # JSON Schema of the data
    Column("kept_at", BigInteger, nullable=False),
)

subscription_cursors = Table(
    "subscription_cursors",
    metadata,
    Column("durable", Text, primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

# Events that a subscription has handled out of order; gone once its cursor has passed them.
handled_events = Table(
    "handled_events",
    metadata,
    Column("durable", Text, primary_key=True),
    Column("position", BigInteger, primary_key=True),
)

# How far the stream of each service is imported: a restored database is behind what its consumer has acknowledged.
import_places = Table(
    "import_places",
    metadata,
    Column("source", Text, primary_key=True),
    Column("sequence", BigInteger, nullable=False),  # in the stream
    Column("consumer", Text),  # of which life of our consumer: a stream that was made anew has other sequences
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", Sequence, primary_key=True, autoincrement=True),
    Column("durable", Text, nullable=False),
    Column("position", BigInteger, nullable=False),  # in the log; of an event that was not let in, in its stream
    Column("event_id", Text, nullable=False),
    Column("type", Text),  # NULL where what came was no event
    Column("body", LargeBinary),  # what is handled again: CloudEvents JSON, kept when the log has forgotten it
    Column("error", Text, nullable=False),
    Column("stack", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("dead_at", BigInteger, nullable=False),
    Column("redriven_at", BigInteger),  # NULL while it rests; else when it is due to be handled again
    # Not 0: its handler wanted it later, after so many attempts; it is not dead.
    Column("deferred_attempts", Integer, nullable=False, server_default="0"),
    # With its id, for a stream that was made anew gives places of before to others.
    UniqueConstraint("durable", "position", "event_id", name="dead_letters_event"),
    Index("dead_letters_redriven", "durable", sqlite_where=REDRIVEN, postgresql_where=REDRIVEN),
    sqlite_autoincrement=True,  # whoever still names one that is gone must not mean another
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", Text, primary_key=True),
    Column("url", Text, nullable=False),
    Column("types", Text, nullable=False),  # JSON list of names and patterns
    Column("subject", Text),
    Column("owner", Text, nullable=False),
    Column("owner_roles", Text, nullable=False),  # JSON list: what the owner may read is decided at each delivery
    Column("state", Text, nullable=False),  # active | paused | disabled
    Column("reason", Text),  # why it is paused or disabled
    Column("secret", LargeBinary, nullable=False),  # sealed
    Column("previous_secret", LargeBinary),  # sealed; signs too until then
    Column("previous_until", BigInteger),
    Column("failures", Integer, nullable=False),  # in a row
    Column("interrupted_until", BigInteger),  # nothing is delivered before; NULL while all is well
    Column("version", Integer, nullable=False),  # of what its deliveries start with
    Column("created_at", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    Index("webhooks_owner", "owner"),
)

# The last attempts at each webhook.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", Sequence, primary_key=True, autoincrement=True),
    Column("webhook", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("sent_at", BigInteger, nullable=False),
    Column("duration_micros", BigInteger, nullable=False),
    Column("status", Integer),  # NULL where there was no answer
    Column("error", Text),  # NULL where it was delivered
    Index("webhook_deliveries_webhook", "webhook", "id"),
)
