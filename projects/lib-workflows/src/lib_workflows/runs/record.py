"""A run as it is loaded: its fixed facts, and what its database rows say of its past."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import func, select

from lib_events.database import Connection
from lib_events.event import Cause
from lib_workflows.authoring.context import RunInfo
from lib_workflows.authoring.messages import Principal
from lib_workflows.runs.state import TERMINAL
from lib_workflows.statements import INSERT_RUN, HistoryRow
from lib_workflows.tables import approvals, attempts, event_waits, heartbeats, history, messages, run_logs, runs
from lib_workflows.values.codec import decode_json
from lib_workflows.values.identifiers import STARTED_PREFIX

# The row that a run which continued as new begins with: how far it has received events.
RECEIVED_KIND = RECEIVED_OPERATION = "received"
# The row that says that the run undoes what it did: why, and what in which order.
UNDOING_KIND = UNDOING_OPERATION = "undoing"
UNDO_SUFFIX = "/undo"  # of an operation, in the row of what undoes it
# The row that says that the run was retried, itself set aside with what it set aside.
RETRY_KIND = RETRY_OPERATION = "retry"
# The row that says that the run failed by itself, and not because of what had failed before: it had gone on from that.
GOT_OVER_KIND = "got-over"
# The row behind what a fork has of another run's history: whose it was, and when that began.
FORK_KIND = "fork"
HISTORY_COLUMNS = tuple(history.c[name] for name in HistoryRow._fields)


class Message(NamedTuple):
    """One message of a run's inbox."""

    number: int
    kind: str
    name: str
    payload: str | None
    reference: str | None


class Child(NamedTuple):
    """A run started by `ctx.child`, as its parent sees it."""

    id: str
    workflow: str
    status: str
    output: str | None = None
    error: str | None = None
    parent_life: int | None = None  # in which it was started, where its id was chosen and does not say so

    @property
    def has_ended(self) -> bool:
        """Whether it will not change any more."""
        return self.status in TERMINAL


class Attempted(NamedTuple):
    """The last attempt of an operation that failed."""

    number: int
    error: str  # its record, as JSON
    name: str | None = None  # of what was tried


class Progress(NamedTuple):
    """The last heartbeat of an operation that was kept."""

    text: str
    name: str | None = None  # of the step that told it


@dataclass(slots=True, kw_only=True)
class RunRecord:
    """The facts of a run that its executor needs."""

    id: str
    workflow: str
    version: int
    queue: str
    status: str
    created_at: int
    owner: str | None = None
    input: str | None = None
    output: str | None = None
    error: str | None = None
    principal: str | None = None
    principal_name: str | None = None
    tags: str | None = None
    correlation_id: str = ""
    causation_id: str | None = None
    traceparent: str | None = None
    parent: str | None = None
    parent_operation: str | None = None
    deadline_at: int | None = None
    deadline_micros: int | None = None  # that its workflow declares, where that is what `deadline_at` is made of
    started_at: int | None = None
    priority: int = 0
    depth: int = 0  # how many parents are above it
    queue_key: str | None = None  # with whom it takes turns in its queue
    earlier_lives: int = 0  # before it last continued as new
    wake_at: int | None = None  # when it was queued: from when on it may begin
    parent_life: int | None = None  # see `Child`

    @property
    def scope(self) -> str:
        """What sets names of this life of the run apart from those of the ones it continued."""
        return scope_of(self.earlier_lives)

    @property
    def life_name(self) -> str:
        """What the chance of this life is made of."""
        return name_of_life(self.id, self.status, self.earlier_lives)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "RunRecord":
        """From a row of `runs`."""
        return cls(**{name: row[name] for name in RECORD_FIELDS})

    def cause(self) -> Cause:
        """The cause that every event of the run carries."""
        return Cause(self.correlation_id or self.id, self.causation_id, self.principal, self.traceparent)

    def info(self, source: str, tags: str | None) -> RunInfo:
        """What the workflow sees of it; `tags` as it began."""
        return RunInfo(
            id=id_in_life(self.id, self.status),
            workflow=self.workflow,
            version=self.version,
            source=source,
            principal=Principal(self.principal, self.principal_name) if self.principal else None,
            correlation_id=self.correlation_id,
            causation_id=self.causation_id,
            traceparent=self.traceparent,
            tags=decode_json(tags) if tags else {},
        )


def scope_of(earlier_lives: int) -> str:
    """What sets names of one life of a run apart from those of the ones it continued."""
    return f"~{earlier_lives}" if earlier_lives else ""


def id_in_life(run_id: str, status: str) -> str:
    """The id by which a run knew itself: a life that it has set apart to continue as new is kept under another one."""
    return run_id.rstrip("~").rpartition("~")[0] if status == "continued" else run_id


def name_of_life(run_id: str, status: str, earlier_lives: int) -> str:
    """What the chance of a life of a run is made of."""
    return id_in_life(run_id, status) + scope_of(earlier_lives)


RECORD_FIELDS = tuple(entry.name for entry in fields(RunRecord))
NEW_COLUMNS = tuple(name for name, _ in INSERT_RUN.columns)
new_row = attrgetter(*NEW_COLUMNS)  # of a run that is new, as `INSERT_RUN` takes it


@dataclass(slots=True)
class Stored:
    """What the database holds of a run's past; empty for one that begins."""

    history: list[HistoryRow] = field(default_factory=list)
    retries: list[HistoryRow] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    wakes: int = 0
    attempts: dict[str, Attempted] = field(default_factory=dict)
    pauses: dict[str, int] = field(default_factory=dict)  # operation -> when its next attempt may begin
    progress: dict[str, Progress] = field(default_factory=dict)  # operation -> its last heartbeat that was kept
    children: dict[str, Child] = field(default_factory=dict)
    approvals: dict[str, str] = field(default_factory=dict)  # what operations have asked already, by its name
    open_approvals: frozenset[str] = frozenset()  # those of them that nobody has decided
    event_waits: frozenset[str] = frozenset()  # operations that the matcher has an event for, once it comes
    last_position: int = 0  # also of rows set aside by a retry
    resumed: bool = False  # it has been in memory before
    claimed: bool = False  # it was queued and begins now
    queued: bool = False  # it was queued, and nothing of it was under way
    life: int = 0  # how often a retry, or continuing as new, has set a part of the history aside
    undone: dict[str, int] = field(default_factory=dict)  # operation -> how often retries have set its undo aside
    log_lines: int = 0  # that it has kept

    @property
    def goes_on_anew(self) -> bool:
        """Whether nobody has been behind its last row: it had ended and was retried. One that was parked had not, and
        what it had begun may still be under way."""
        was_set_aside = bool(self.retries) and self.retries[-1].position == self.last_position
        return was_set_aside and not (self.children or self.approvals or self.attempts)


def load(connection: Connection, run_ids: Sequence[str]) -> list[tuple[RunRecord, Stored]]:
    """Read runs and their past, all in one snapshot."""
    loaded = load_new(connection, run_ids)
    stored = {record.id: past for record, past in loaded}
    for run_id, children in read_children(connection, run_ids).items():
        stored[run_id].children = children_of_life(run_id, children, stored[run_id].life)
    for row in connection.execute(select(attempts).where(attempts.c.run.in_(run_ids))):
        stored[row.run].attempts[row.operation] = Attempted(row.attempt, row.error, row.name)
        stored[row.run].pauses[row.operation] = row.next_at
    for row in connection.execute(select(heartbeats).where(heartbeats.c.run.in_(run_ids))):
        stored[row.run].progress[row.operation] = Progress(row.progress, row.name)
    lines = select(run_logs.c.run, func.max(run_logs.c.number).label("last")).where(run_logs.c.run.in_(run_ids))
    for row in connection.execute(lines.group_by(run_logs.c.run)):
        stored[row.run].log_lines = row.last
    _load_waits(connection, stored)
    return loaded


def load_new(connection: Connection, run_ids: Sequence[str]) -> list[tuple[RunRecord, Stored]]:
    """Read runs that have never run: there is nothing of them but what was sent to them, and a fork's history."""
    records = connection.execute(select(runs).where(runs.c.id.in_(run_ids))).mappings().all()
    stored = {row["id"]: Stored(wakes=row["wakes"], resumed=True, life=row["earlier_lives"]) for row in records}
    _load_history(connection, stored)
    for run_id, found in read_messages(connection, run_ids).items():
        stored[run_id].messages = found
    return [(RunRecord.of(dict(row)), stored[row["id"]]) for row in records]


def _load_waits(connection: Connection, stored: Mapping[str, Stored]) -> None:
    columns = (approvals.c.id, approvals.c.run, approvals.c.operation, approvals.c.name, approvals.c.status)
    for row in connection.execute(select(*columns).where(approvals.c.run.in_(list(stored)))):
        past = stored[row.run]
        if row.id == approval_id(row.run, row.operation, past.life):
            past.approvals[row.operation] = row.name
            if row.status == "pending":
                past.open_approvals |= {row.operation}
    waits = select(event_waits.c.run, event_waits.c.operation).where(event_waits.c.run.in_(list(stored)))
    for row in connection.execute(waits):
        stored[row.run].event_waits |= {row.operation}


def _load_history(connection: Connection, stored: Mapping[str, Stored]) -> None:
    query = select(*HISTORY_COLUMNS, history.c.voided).where(history.c.run.in_(list(stored)))
    retries: dict[str, set[int]] = {}
    earlier = {run_id: past.life for run_id, past in stored.items()}
    for found in connection.execute(query.order_by(history.c.run, history.c.position)):
        *values, voided = tuple(found)
        row = HistoryRow(*values)
        past = stored[row.run]
        past.last_position = row.position
        if voided:
            retries.setdefault(row.run, set()).add(voided)
            past.life = earlier[row.run] + len(retries[row.run])
            if row.kind == RETRY_KIND:
                past.retries.append(row)
            elif row.kind == "undo" and row.status == "completed":
                operation = row.operation.removesuffix(UNDO_SUFFIX)
                past.undone[operation] = past.undone.get(operation, 0) + 1
        else:
            past.history.append(row)


def named_in_life(operation: str, life: int) -> str:
    """What names outside the run are made of: an operation that a retry asks for again gets new ones."""
    return f"{operation}~{life}" if life else operation


def approval_id(run_id: str, operation: str, life: int = 0) -> str:
    """The id of the approval that an operation asks for."""
    return f"{run_id}.{named_in_life(operation, life).replace('/', '-')}"


def child_run_id(parent: str, operation: str, life: int = 0) -> str:
    """The id of the run that an operation starts."""
    digest = hashlib.blake2b(f"{parent}\0{named_in_life(operation, life)}".encode(), digest_size=16)
    return STARTED_PREFIX + digest.hexdigest()


def is_child_of(child: Child, parent: str, operation: str, life: int) -> bool:
    """Whether a child is the one that an operation started in that life of its parent; older ids have no prefix."""
    if child.parent_life is not None:
        return child.parent_life == life
    return STARTED_PREFIX + child.id.removeprefix(STARTED_PREFIX) == child_run_id(parent, operation, life)


def event_id(run_id: str, operation: str, life: int = 0) -> str:
    """The id of the event that an operation publishes."""
    named = f"{run_id}\0{named_in_life(operation, life)}\0event"
    return str(UUID(bytes=hashlib.blake2b(named.encode(), digest_size=16).digest(), version=4))


def children_of_life(run_id: str, children: Mapping[str, Sequence[Child]], life: int) -> dict[str, Child]:
    """The children that the run has started since its last retry, by operation."""
    return {
        operation: child
        for operation, started in children.items()
        for child in started
        if is_child_of(child, run_id, operation, life)
    }


def read_messages(connection: Connection, run_ids: Sequence[str], after: int | None = None) -> dict[str, list[Message]]:
    """The messages of runs, those after number `after`, in order; what a retry has given back comes before number 1."""
    columns = (messages.c[name] for name in Message._fields)
    query = select(messages.c.run, *columns).where(messages.c.run.in_(run_ids))
    query = query if after is None else query.where(messages.c.number > after)
    found: dict[str, list[Message]] = {}
    for run_id, *values in map(tuple, connection.execute(query.order_by(messages.c.run, messages.c.number))):
        found.setdefault(run_id, []).append(Message(*values))
    return found


def read_children(connection: Connection, run_ids: Sequence[str]) -> dict[str, dict[str, list[Child]]]:
    """The children of runs by the operation that started them."""
    query = select(runs.c.parent, runs.c.parent_operation, *(runs.c[name] for name in Child._fields))
    found: dict[str, dict[str, list[Child]]] = {}
    for parent, operation, *values in map(tuple, connection.execute(query.where(runs.c.parent.in_(run_ids)))):
        found.setdefault(parent, {}).setdefault(operation, []).append(Child(*values))
    return found


class News(NamedTuple):
    """What came for a run in memory."""

    wakes: int
    messages: list[Message]
    children: dict[str, Child]


def refresh(connection: Connection, asked: Mapping[str, tuple[int, int]]) -> dict[str, News]:
    """What came for runs in memory, each by its id with the wakes it has seen and its life."""
    wakes = connection.execute(select(runs.c.id, runs.c.wakes).where(runs.c.id.in_(list(asked)))).all()
    messages_of = read_messages(connection, list(asked), min(seen for seen, _ in asked.values()))
    children = read_children(connection, list(asked))
    return {
        row.id: News(
            row.wakes,
            [message for message in messages_of.get(row.id, ()) if message.number > asked[row.id][0]],
            children_of_life(row.id, children.get(row.id, {}), asked[row.id][1]),
        )
        for row in wakes
    }
