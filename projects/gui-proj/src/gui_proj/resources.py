"""The shapes the AppService answers with, as far as the screens read them."""

from typing import Any, Literal, NotRequired, TypedDict

type RunStatus = Literal[
    "queued",
    "running",
    "waiting",
    "cancelling",
    "completed",
    "failed",
    "cancelled",
    "nondeterministic",
    "continued",
]

ENDED: frozenset[str] = frozenset({"completed", "failed", "cancelled", "nondeterministic", "continued"})


class Delegation(TypedDict):
    resource: str
    scope: list[str]
    lasts_seconds: float


class Batch(TypedDict):
    events: int
    timeout_seconds: float
    key: str | None


class Workflow(TypedDict):
    name: str
    version: int
    type: str
    description: str
    queue: str
    on: list[str]
    batch: Batch | None
    deadline_seconds: float | None
    acts_for_starter: list[Delegation]
    input_schema: dict[str, Any] | None
    output_schema: dict[str, Any] | None


def starts_by_event_alone(workflow: Workflow) -> bool:
    """Whether nobody starts it by hand: its input comes from an event of the product, or the AppService refuses it."""
    return workflow["input_schema"] is not None and any(name.startswith("evs.") for name in workflow["on"])


class RunError(TypedDict):
    type: str
    message: str
    stack: NotRequired[str | None]


class Progress(TypedDict):
    fraction: float | None
    text: str | None


class Asker(TypedDict):
    subject: str
    username: str | None


class Awaited(TypedDict):
    kind: str
    name: str
    until: str | None
    count: int


class ActedAt(TypedDict):
    resource: str
    scope: list[str]


class Acting(TypedDict):
    """What a run that goes on does at other services for its principal."""

    state: Literal["acting", "expired", "stopped", "nobody"]
    until: str | None
    services: list[ActedAt]


class Run(TypedDict):
    id: str
    workflow: str
    version: int
    status: RunStatus
    input: Any
    output: Any
    error: RunError | None
    progress: Progress | None
    views: dict[str, Any]
    principal: Asker | None
    queue: str
    tags: dict[str, str]
    correlation_id: str
    parent: str | None
    forked_from: str | None
    created_at: str
    started_at: str | None
    ended_at: str | None
    deadline_at: str | None
    waiting_for: list[Awaited]
    undoing_since: str | None
    acting: Acting | None


class Undo(TypedDict):
    """What undoes an operation, and how far that is."""

    name: str
    status: Literal["declared", "pending", "running", "undone", "failed"]
    attempt: int
    error: RunError | None
    ended_at: str | None


class Operation(TypedDict):
    """One entry of a run's history."""

    position: int
    operation: str
    kind: str
    name: str
    status: str
    attempt: int | None
    started_at: str | None
    ended_at: str | None
    input: NotRequired[Any]
    output: NotRequired[Any]
    error: NotRequired[RunError | None]
    undo: NotRequired[Undo | None]


class Difference(TypedDict):
    """An operation that only one of two runs has, or that ended differently."""

    operation: str
    fields: list[str]
    run: Operation | None
    other: Operation | None


class Comparison(TypedDict):
    run: str
    other: str
    fields: list[str]
    differences: list[Difference]
    total: int


class Approval(TypedDict):
    id: str
    run: str
    workflow: str
    name: str
    text: str
    to: str
    status: Literal["pending", "approved", "rejected", "expired"]
    asked_at: str
    due_at: str | None
    decided_at: str | None
    decided_by: Any
    comment: str | None
    about: Any


class ScheduledRun(TypedDict):
    """One of the last runs of a schedule; without a status it is not kept any more."""

    id: str
    kind: Literal["due", "waited", "trigger", "backfill"]
    due_at: str
    started_at: str
    status: RunStatus | None


class Schedule(TypedDict):
    """Of `cron`, `every_seconds` and `times` one is set."""

    name: str
    workflow: str
    input: Any
    queue: str | None
    tags: dict[str, str]
    cron: str | None
    timezone: str | None
    every_seconds: float | None
    start: str | None
    times: list[str] | None
    since: str | None
    until: str | None
    overlap: Literal["skip", "allow", "buffer_one", "cancel_other"]
    catch_up: Literal["one", "all"]
    catch_up_window_seconds: float
    jitter_seconds: float
    paused: bool
    note: str
    declared: bool
    principal: str | None
    principal_name: str | None
    next_at: str | None
    acts_until: str | None
    waiting_since: str | None
    fired: int
    skipped: int
    created_at: str
    changed_at: str
    last_runs: list[ScheduledRun]
    next_times: NotRequired[list[str]]  # of one schedule, not in a list


class QueueRate(TypedDict):
    runs: int
    seconds: float


class Queue(TypedDict):
    """Of `queued` runs none has begun; of some, `due`, the time has come; `declared`: its limits are the code's."""

    name: str
    paused: bool
    note: str
    concurrency: int | None
    rate: QueueRate | None
    key: str | None  # the field of the input by which its runs take turns
    per_key: int | None
    rate_per_key: QueueRate | None
    declared: bool
    workflows: list[str]
    queued: int
    due: int
    due_since: str | None
    under_way: int


class Webhook(TypedDict):
    """`interrupted`: it fails, and is left alone until `next_attempt_at`."""

    id: str
    url: str
    types: list[str]
    subject: str | None
    owner: str
    state: Literal["active", "paused", "disabled", "interrupted"]
    reason: str | None
    failures: int
    next_attempt_at: str | None
    previous_secret_until: str | None
    created_at: str
    changed_at: str


class Delivery(TypedDict):
    """One attempt at an event."""

    event_id: str
    event_type: str
    attempt: int
    sent_at: str
    duration_ms: float
    status: int | None
    error: str | None


class DeadLetter(TypedDict):
    """An event that a subscription gave up on; `redriven` while it waits to be handled again."""

    id: int
    subscription: str
    status: Literal["resting", "redriven"]
    event_id: str
    event_type: str | None
    error: str
    attempts: int
    dead_at: str


class Listing[T](TypedDict):
    items: list[T]
    next_cursor: str | None
