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


class Workflow(TypedDict):
    name: str
    version: int
    type: str
    description: str
    queue: str
    on: list[str]
    input_schema: dict[str, Any] | None
    output_schema: dict[str, Any] | None


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
    tags: dict[str, str]
    correlation_id: str
    parent: str | None
    forked_from: str | None
    created_at: str
    started_at: str | None
    ended_at: str | None
    waiting_for: list[Awaited]
    undoing_since: str | None


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


class Listing[T](TypedDict):
    items: list[T]
    next_cursor: str | None
