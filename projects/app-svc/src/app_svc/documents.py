"""The documents the REST API shows: workflows, runs, histories, approvals; made from the rows that hold them."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field
from pydantic_core import from_json

from lib_events.clock import to_datetime
from lib_workflows import Workflow


class WorkflowDocument(BaseModel):
    """A workflow of the catalogue."""

    name: str
    version: int
    type: str
    description: str
    queue: str
    on: list[str]
    input_schema: dict[str, Any] | None
    output_schema: dict[str, Any] | None


class PrincipalDocument(BaseModel):
    """Who started a run."""

    subject: str
    username: str | None


class ErrorDocument(BaseModel):
    """Why something failed."""

    type: str
    message: str
    stack: str | None = None


class ProgressDocument(BaseModel):
    """How far a run is: live only."""

    fraction: float
    text: str


class RunDocument(BaseModel):
    """A run. In lists `input`, `output` and `views` are left out (null, null, {}): ask for the run itself."""

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
    waiting_for: list[dict[str, Any]]


class HistoryDocument(BaseModel):
    """One row of a run's history."""

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


class ApprovalDocument(BaseModel):
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


class DeadLetterDocument(BaseModel):
    """An event a subscription gave up on."""

    id: int
    subscription: str
    position: int
    event_id: str
    error: str
    attempts: int
    dead_at: datetime


def describe_workflow(workflow: Workflow[*tuple[Any, ...], Any]) -> WorkflowDocument:
    """The document of a registered workflow."""
    return WorkflowDocument(
        name=workflow.name,
        version=workflow.version,
        type=workflow.type,
        description=workflow.description,
        queue=workflow.queue,
        on=[event_type.name for event_type in workflow.on],
        input_schema=workflow.input_schema(),
        output_schema=workflow.output_schema(),
    )


def describe_run(row: Any, *, whole: bool = False, views: dict[str, Any] | None = None) -> RunDocument:
    """The document of a row of `runs`; `whole` with its input and output."""
    return RunDocument(
        id=row.id,
        workflow=row.workflow,
        version=row.version,
        status=row.status,
        input=_decode(row.input) if whole else None,
        output=_decode(row.output) if whole else None,
        error=_describe_error(row.error),
        views=views or {},
        principal=PrincipalDocument(subject=row.principal, username=row.principal_name) if row.principal else None,
        queue=row.queue,
        tags=_decode(row.tags) or {},
        correlation_id=row.correlation_id,
        parent=row.parent,
        forked_from=row.forked_from,
        created_at=to_datetime(row.created_at),
        started_at=_moment(row.started_at),
        ended_at=_moment(row.ended_at),
        waiting_for=_decode(row.waiting_for) or [],
    )


def describe_history(row: Any) -> HistoryDocument:
    """The document of a row of `history`."""
    return HistoryDocument(
        position=row.position,
        operation=row.operation,
        kind=row.kind,
        name=row.name,
        status=row.status,
        attempt=row.attempt,
        started_at=to_datetime(row.started_at),
        ended_at=_moment(row.ended_at),
        input=_decode(row.input),
        output=_decode(row.output),
        error=_describe_error(row.error),
    )


def describe_approval(row: Any) -> ApprovalDocument:
    """The document of a row of `approvals`."""
    decider = PrincipalDocument(subject=row.decided_by, username=row.decided_by_name) if row.decided_by else None
    return ApprovalDocument(
        id=row.id,
        run=row.run,
        workflow=row.workflow,
        name=row.name,
        text=row.text,
        to=row.addressee,
        status=row.status,
        asked_at=to_datetime(row.asked_at),
        due_at=_moment(row.due_at),
        decided_at=_moment(row.decided_at),
        decided_by=decider,
        comment=row.comment,
        about=_decode(row.about),
    )


def describe_dead_letter(row: Any) -> DeadLetterDocument:
    """The document of a row of `dead_letters`."""
    return DeadLetterDocument(
        id=row.id,
        subscription=row.durable,
        position=row.position,
        event_id=row.event_id,
        error=row.error,
        attempts=row.attempts,
        dead_at=to_datetime(row.dead_at),
    )


def _decode(text: str | None) -> Any:
    return None if text is None else from_json(text)


def _moment(micros: int | None) -> datetime | None:
    return None if micros is None else to_datetime(micros)


def _describe_error(text: str | None) -> ErrorDocument | None:
    record = _decode(text)
    if record is None:
        return None
    return ErrorDocument(type=record["type"], message=record["message"], stack=record.get("stack") or None)
