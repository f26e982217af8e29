"""The documents the REST API shows, made of what the read side of the library says: `Document.model_validate(view)`."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from lib_workflows import Batch
from lib_workflows.authoring.workflow import AnyWorkflow
from lib_workflows.reading.undo_views import UndoStatus


class Document(BaseModel):
    """Made of an object with the same attributes."""

    model_config = ConfigDict(from_attributes=True)


class DelegationDocument(Document):
    """What a workflow does at one service for the person who starts it, and for how long at most."""

    resource: str
    scope: list[str]
    lasts_seconds: float


class BatchDocument(BaseModel):
    """How events gather before they start a run: so many, or those of a time, of each value of a field of theirs."""

    events: int = Field(description="So many start a run together")
    timeout_seconds: float = Field(description="Or those that have come, so long after the first of them")
    key: str | None = Field(description="The field of the payload by whose values they gather; null: all together")


class WorkflowDocument(BaseModel):
    """A workflow of the catalogue."""

    name: str
    version: int
    type: str
    description: str
    queue: str
    on: list[str]
    batch: BatchDocument | None = Field(description="How these events gather; null: each starts a run of its own")
    deadline_seconds: float | None = Field(
        description="A run that has not ended so long after its start is cancelled, unless the start names a deadline"
    )
    requires: list[str] = Field(description="Tags that a worker must have to run it")
    acts_for_starter: list[DelegationDocument] = Field(
        description="What it may do at other services for the person who starts it; it ends with the run"
    )
    input_schema: dict[str, Any] | None
    output_schema: dict[str, Any] | None


class SizeDocument(Document):
    """What the runs of a workflow take of the database: texts as they are stored, without indexes."""

    workflow: str
    runs: dict[str, int] = Field(description="How many runs have each status")
    rows: int
    bytes: int


class PrincipalDocument(Document):
    """Who started a run."""

    subject: str
    username: str | None


class ErrorDocument(Document):
    """Why something failed."""

    type: str
    message: str
    stack: Annotated[str | None, BeforeValidator(lambda stack: stack or None)] = None


class ProgressDocument(BaseModel):
    """How far a run is: live only."""

    fraction: float
    text: str


class ServiceDocument(Document):
    """A service that a run acts at, and what it may do there."""

    resource: str
    scope: list[str]


class ActingDocument(BaseModel):
    """What a run that goes on does at other services for the person who started it.

    `acting`: it may; `expired`: its time is over; `stopped`: it was taken back; `nobody`: it never had anybody to act
    for, or an operator retried it.
    """

    state: Literal["acting", "expired", "stopped", "nobody"]
    until: datetime | None = Field(description="Null where it acts for nobody; with the run it ends in any case")
    services: list[ServiceDocument]


class RunDocument(Document):
    """A run. In lists `input`, `output`, `views` and `acting` are left out (null or {}): ask for the run itself."""

    id: str
    workflow: str
    version: int
    status: str
    input: Any = None
    output: Any = None
    error: ErrorDocument | None = None
    progress: ProgressDocument | None = None
    views: dict[str, Any] = Field(default_factory=dict)
    principal: PrincipalDocument | None
    queue: str
    tags: dict[str, str]
    correlation_id: str
    parent: str | None
    forked_from: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    deadline_at: datetime | None = Field(description="When it is cancelled, unless it has ended")
    waiting_for: list[dict[str, Any]]
    undoing_since: datetime | None = Field(
        description="Set while the run, having failed or been cancelled, undoes what it did"
    )
    acting: ActingDocument | None = Field(
        default=None,
        description="While the run goes on, for whom (its principal) it acts at other services; not in lists",
    )


class UndoDocument(Document):
    """What undoes an operation, and how far that is.

    `declared`: nothing asks for it; `pending`: to come; `running`: under way at its `attempt`-th attempt, `error` being
    that of the one before; `undone` and `failed` are final. Operations are undone one by one, the last begun first.
    """

    name: str
    status: UndoStatus
    attempt: int
    error: ErrorDocument | None
    ended_at: datetime | None


class HistoryDocument(Document):
    """One row of a run's history; `undo` is null where there is nothing to undo."""

    position: int
    operation: str
    kind: str
    name: str
    status: str
    attempt: int
    started_at: datetime
    ended_at: datetime | None
    input: Any = None
    output: Any = None
    error: ErrorDocument | None = None
    undo: UndoDocument | None = None


class DifferenceDocument(BaseModel):
    """An operation that only one of two runs has, or that ended differently: `fields` names what differs."""

    operation: str
    fields: list[str]
    run: HistoryDocument | None
    other: HistoryDocument | None


class ComparisonDocument(BaseModel):
    """Where two runs differ: `fields` of the runs themselves, and the first of their operations that do."""

    run: str
    other: str
    fields: list[str]
    differences: list[DifferenceDocument]
    total: int = Field(description="How many operations differ, also where fewer are shown")


class LogDocument(Document):
    """One line that a run logged; without an operation the workflow itself logged it."""

    number: int
    at: datetime
    level: str
    logger: str
    message: str
    operation: str | None
    attempt: int | None


class ApprovalDocument(Document):
    """A question to a person, and what became of it."""

    id: str
    run: str
    workflow: str
    name: str
    text: str
    to: str
    status: str
    asked_at: datetime
    due_at: datetime | None
    decided_at: datetime | None
    decided_by: PrincipalDocument | None
    comment: str | None
    about: dict[str, Any] | None


def describe_workflow(workflow: AnyWorkflow) -> WorkflowDocument:
    """The document of a registered workflow."""
    return WorkflowDocument(
        name=workflow.name,
        version=workflow.version,
        type=workflow.type,
        description=workflow.description,
        queue=workflow.queue,
        on=[event_type.name for event_type in workflow.on],
        batch=_describe_batch(workflow.batch),
        deadline_seconds=None if workflow.deadline is None else workflow.deadline.total_seconds(),
        requires=sorted(workflow.requires),
        acts_for_starter=[
            DelegationDocument(resource=each.resource, scope=list(each.scope), lasts_seconds=each.lasts.total_seconds())
            for each in workflow.acts_for_starter
        ],
        input_schema=workflow.input_schema(),
        output_schema=workflow.output_schema(),
    )


def _describe_batch(batch: Batch | None) -> BatchDocument | None:
    if batch is None:
        return None
    return BatchDocument(events=batch.events, timeout_seconds=batch.timeout.total_seconds(), key=batch.key)
