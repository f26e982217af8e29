"""The tables of the workflow engine, as SQLAlchemy Core describes them.

Times are microseconds since the epoch, UTC. A run is *due* when `wake_at` has come: a queued run from its
start, a waiting one when its next timer ends or a command has set it to 0. `wakes` counts the commands, so
that going to rest and being woken cannot miss each other.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TextClause,
    UniqueConstraint,
    text,
)

from lib_events.database import Schema

metadata = MetaData()
SCHEMA = Schema("lib_workflows", metadata, "lib_workflows.migrations")


PRINCIPAL = text("(coalesce(principal, ''))")
QUEUED = "status = 'queued'"
DEBOUNCED = f"{QUEUED} AND debounce_key IS NOT NULL"
OPEN = "due_at > 0"  # a batch that takes more


def _partial(name: str, condition: str, *columns: str | TextClause, unique: bool = False) -> Index:
    where = text(condition)
    return Index(name, *columns, unique=unique, sqlite_where=where, postgresql_where=where)


runs = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("workflow", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("queue", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("owner", Text),  # the worker that has it in memory
    Column("input", Text),
    Column("output", Text),
    Column("error", Text),
    Column("principal", Text),
    Column("principal_name", Text),
    Column("tags", Text),
    Column("idempotency_key", Text),
    Column("correlation_id", Text, nullable=False),
    Column("causation_id", Text),
    Column("traceparent", Text),
    Column("parent", Text),
    Column("parent_operation", Text),
    Column("parent_life", Integer),  # in which it was started, where its id was chosen and does not say so
    Column("forked_from", Text),
    Column("look_back_position", BigInteger, nullable=False),  # wait_event begins to look here
    Column("wakes", BigInteger, nullable=False),
    Column("wake_at", BigInteger),
    Column("deadline_at", BigInteger),
    Column("deadline_micros", BigInteger),  # that its workflow declares, where `deadline_at` is made of that
    Column("waiting_for", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("depth", Integer, nullable=False, server_default="0"),  # how many parents are above it
    Column("earlier_lives", Integer, nullable=False, server_default="0"),  # before it last continued as new
    Column("first_input", Text),  # of the first life of a run that has continued as new
    Column("life_position", BigInteger),  # of the log, as this life began; of the first, `look_back_position`
    Column("debounce_key", Text),  # starts with the same one are this run, until it begins
    Column("debounce_until", BigInteger),  # when it begins however many more come
    Column("slot", Text),  # the limited queue in which it counts, from its beginning to its end
    Column("queue_key", Text),  # with whom it takes turns in its queue
    _partial("runs_due", "wake_at IS NOT NULL AND status <> 'queued'", "owner", "wake_at"),
    _partial("runs_later", QUEUED, "wake_at"),
    _partial("runs_late", f"{QUEUED} AND deadline_at IS NOT NULL", "deadline_at"),
    _partial("runs_debounce", DEBOUNCED, "workflow", PRINCIPAL, "debounce_key", unique=True),
    _partial("runs_queued", QUEUED, "queue", text("priority DESC"), "wake_at"),
    _partial(
        "runs_queued_by_key",
        f"{QUEUED} AND queue_key IS NOT NULL",
        "queue",
        "queue_key",
        text("priority DESC"),
        "wake_at",
    ),
    _partial("runs_slot", "slot IS NOT NULL AND ended_at IS NULL", "slot"),
    _partial("runs_unfinished", "ended_at IS NULL", "owner"),
    _partial("runs_parent", "parent IS NOT NULL", "parent"),
    # Nobody is a principal too: without one, a key must not mean two runs.
    _partial("runs_idempotency", "idempotency_key IS NOT NULL", PRINCIPAL, "idempotency_key", unique=True),
    _partial("runs_ended", "ended_at IS NOT NULL", "status", "ended_at", "id"),
    Index("runs_created", "created_at", "id"),
    Index("runs_workflow", "workflow", "created_at"),
)

history = Table(
    "history",
    metadata,
    Column("run", Text, primary_key=True),
    Column("position", BigInteger, primary_key=True),
    Column("operation", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False),  # completed, failed or cancelled
    Column("attempt", Integer, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger, nullable=False),
    Column("input", Text),
    Column("output", Text),
    Column("error", Text),
    Column("meta", Text),
    Column("voided", BigInteger, nullable=False),  # 0, or when a retry set this row aside
    UniqueConstraint("run", "operation", "voided", name="history_operation"),
    sqlite_with_rowid=False,
)

messages = Table(
    "messages",
    metadata,
    Column("run", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("kind", Text, nullable=False),  # signal, update, event, decision or cancel
    Column("name", Text, nullable=False),  # of the signal or update, or the operation it answers
    Column("payload", Text),
    Column("reference", Text),  # the update's id, the event's position, the approval's id
    Column("sent_at", BigInteger, nullable=False),
)

sent_signals = Table(
    "sent_signals",
    metadata,
    Column("run", Text, primary_key=True),
    Column("key", Text, primary_key=True),  # a signal that is sent with it again is that one
)
updates = Table(
    "updates",
    metadata,
    Column("id", Text, primary_key=True),
    Column("run", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False),  # pending, completed or rejected
    Column("reply", Text),
    Column("principal", Text),
    Column("sent_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Index("updates_run", "run"),
)

event_waits = Table(
    "event_waits",
    metadata,
    Column("run", Text, primary_key=True),
    Column("operation", Text, primary_key=True),
    Column("type", Text, nullable=False),
    Column("fields", Text, nullable=False),  # the names of `match`, sorted, joined by commas
    Column("match", Text, nullable=False),  # canonical JSON
    Column("after_position", BigInteger, nullable=False),
    Index("event_waits_match", "type", "fields", "match"),
)

triggers = Table(
    "triggers",
    metadata,
    Column("event_type", Text, primary_key=True),
    Column("workflow", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("queue", Text, nullable=False),
    Column("takes_input", Boolean, nullable=False),
    Column("queue_key", Text),  # the field by which its runs take turns
    Column("after_position", BigInteger, nullable=False),  # it starts runs for later events only
    Column("deadline_micros", BigInteger),  # of its runs
    Column("batch_events", BigInteger),  # so many start one run; none: each starts its own
    Column("batch_micros", BigInteger),  # or those of so long a time
    Column("batch_key", Text),  # the field of the payload by whose values they gather
)

# What gathers for a run that has not started; when its time has come it starts, at 0 whenever that is.
batches = Table(
    "batches",
    metadata,
    Column("run", Text, primary_key=True),  # that it will be
    Column("workflow", Text, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("key", Text, nullable=False),  # JSON: null where there is none
    Column("version", Integer, nullable=False),
    Column("queue", Text, nullable=False),
    Column("queue_key", Text),
    Column("deadline_micros", BigInteger),  # of its run, as its workflow declares it
    Column("events", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),  # of the payloads
    Column("due_at", BigInteger, nullable=False),
    Column("last_position", BigInteger, nullable=False),
    Column("principal", Text),  # of all its events, else nobody
    Column("correlation_id", Text),
    Column("causation_id", Text),
    Column("traceparent", Text),
    _partial("batches_open", OPEN, "workflow", "event_type", "key", unique=True),
    Index("batches_due", "due_at"),
)

gathered = Table(
    "gathered",
    metadata,
    Column("run", Text, primary_key=True),
    Column("position", BigInteger, primary_key=True),
    Column("payload", Text, nullable=False),
    sqlite_with_rowid=False,
)

approvals = Table(
    "approvals",
    metadata,
    Column("id", Text, primary_key=True),
    Column("run", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("workflow", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("addressee", Text, nullable=False),  # user:<subject> or role:<name>
    Column("about", Text),
    Column("status", Text, nullable=False),  # pending, approved, rejected or expired
    Column("asked_at", BigInteger, nullable=False),
    Column("due_at", BigInteger),
    Column("decided_at", BigInteger),
    Column("decided_by", Text),
    Column("decided_by_name", Text),
    Column("comment", Text),
    Column("form", Text),
    Index("approvals_asked", "asked_at", "id"),
    Index("approvals_addressee", "addressee", "status"),
    Index("approvals_run", "run"),
)

views = Table(
    "views",
    metadata,
    Column("run", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

attempts = Table(
    "attempts",
    metadata,
    Column("run", Text, primary_key=True),
    Column("operation", Text, primary_key=True),
    Column("attempt", Integer, nullable=False),  # the last one that failed
    Column("next_at", BigInteger, nullable=False),
    Column("error", Text, nullable=False),
    Column("name", Text),  # of what was tried: changed code may ask for something else there
)

heartbeats = Table(
    "heartbeats",
    metadata,
    Column("run", Text, primary_key=True),
    Column("operation", Text, primary_key=True),
    Column("progress", Text, nullable=False),  # JSON, of the last heartbeat that was kept
    Column("sent_at", BigInteger, nullable=False),
    Column("name", Text),  # of the step that told it
)

run_logs = Table(
    "run_logs",
    metadata,
    Column("run", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("level", Text, nullable=False),
    Column("logger", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("operation", Text),  # none: the workflow itself
    Column("attempt", Integer),
    sqlite_with_rowid=False,
)

# Runs that retention takes away, piece by piece: the run's own row goes last, so its id is free only then.
pruned_runs = Table("pruned_runs", metadata, Column("run", Text, primary_key=True))

schedules = Table(
    "schedules",
    metadata,
    Column("name", Text, primary_key=True),
    Column("workflow", Text, nullable=False),
    Column("input", Text),
    Column("queue", Text),  # none: the workflow's
    Column("tags", Text),
    Column("timing", Text, nullable=False),  # JSON
    Column("overlap", Text, nullable=False),
    Column("catch_up", Text, nullable=False),
    Column("catch_up_micros", BigInteger, nullable=False),
    Column("jitter_micros", BigInteger, nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("note", Text, nullable=False),
    Column("declared", Boolean, nullable=False),  # beside its workflow, in code
    Column("principal", Text),
    Column("principal_name", Text),
    Column("revision", BigInteger, nullable=False),  # of two that move it, one moves it
    Column("next_at", BigInteger),  # the first time that nothing has been done for
    Column("fire_at", BigInteger),  # and when to do something: later by its jitter
    Column("waiting_at", BigInteger),  # a time that has come and waits for a run to end
    Column("fired", BigInteger, nullable=False),
    Column("skipped", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    Index("schedules_fire", "fire_at"),
    _partial("schedules_waiting", "waiting_at IS NOT NULL", "name"),
)

schedule_runs = Table(
    "schedule_runs",
    metadata,
    Column("schedule", Text, primary_key=True),
    Column("run", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Index("schedule_runs_run", "run"),
)

# A queue has a row once it is limited or paused.
queues = Table(
    "queues",
    metadata,
    Column("name", Text, primary_key=True),
    Column("paused", Boolean, nullable=False),
    Column("note", Text, nullable=False),
    Column("concurrency", BigInteger),  # runs under way at most
    Column("rate", BigInteger),  # runs that begin in `rate_micros`
    Column("rate_micros", BigInteger),
    Column("key", Text),  # the field of the input by which its runs take turns
    Column("per_key", BigInteger),  # runs of each key under way at most
    Column("rate_per_key", BigInteger),  # runs of each key that begin in `rate_per_key_micros`
    Column("rate_per_key_micros", BigInteger),
    Column("last_key", Text),  # whose turn was last
    Column("full_at", BigInteger, nullable=False),  # when as many may begin at once again
    Column("declared", Boolean, nullable=False),  # its limits are the code's
    Column("changed_at", BigInteger, nullable=False),
)

# A bucket that is full again has no row, so that there is one for each key that began lately, not for each there was.
key_buckets = Table(
    "key_buckets",
    metadata,
    Column("queue", Text, primary_key=True),
    Column("key", Text, primary_key=True),  # behind an equals sign; empty: of runs without one
    Column("full_at", BigInteger, nullable=False),  # when as many of that key may begin at once again
    Index("key_buckets_full", "queue", "full_at"),
)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    # In a unique key, so that a takeover's update of it waits for commits that hold FOR KEY SHARE.
    Column("epoch", BigInteger, nullable=False),
    Column("lease_until_at", BigInteger, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("lease_micros", BigInteger),  # how long its lease is: one that ends later was given by another clock
    Column("declares", Text),  # the numbers of its declarations, as JSON
    UniqueConstraint("id", "epoch", name="workers_epoch"),
)

declarations = Table(
    "declarations",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("subject", Text, nullable=False),  # a workflow, of which it says what starts it, or a queue
    Column("digest", Text, nullable=False),
    Column("in_force", Boolean, nullable=False),  # the one of its subject that was made last
    UniqueConstraint("subject", "digest", name="declarations_digest"),
    sqlite_autoincrement=True,
)
