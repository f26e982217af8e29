"""Durable workflows: ordinary async functions that survive crashes."""

from typing import TYPE_CHECKING, Any

from lib_events.event import EventType
from lib_workflows.context import Context
from lib_workflows.delegation import Delegation
from lib_workflows.errors import (
    Cancelled,
    ChildrenTooDeep,
    DefinitionError,
    DelegationRefused,
    NonRetryable,
    RunCancelled,
    RunConflict,
    RunFailed,
    StepFailed,
    StepTimeout,
    TokensUnavailable,
    UpdateRejected,
    WaitTimeout,
    WorkflowsError,
)
from lib_workflows.messages import Decision, Principal, Signal, Update, UpdateCall
from lib_workflows.queue import Queue, QueueLimits, Rate
from lib_workflows.retry import Backoff
from lib_workflows.step import Step, current_step, step
from lib_workflows.timing import At, Between, Cron, Every
from lib_workflows.workflow import Registry, Workflow, workflow

if TYPE_CHECKING:
    from lib_workflows.engine import Engine
    from lib_workflows.retention import RetentionPolicy
    from lib_workflows.run_handle import RunHandle

__all__ = [
    "At",
    "Backoff",
    "Between",
    "Cancelled",
    "ChildrenTooDeep",
    "Context",
    "Cron",
    "Decision",
    "DefinitionError",
    "Delegation",
    "DelegationRefused",
    "Engine",
    "EventType",
    "Every",
    "NonRetryable",
    "Principal",
    "Queue",
    "QueueLimits",
    "Rate",
    "Registry",
    "RetentionPolicy",
    "RunCancelled",
    "RunConflict",
    "RunFailed",
    "RunHandle",
    "Signal",
    "Step",
    "StepFailed",
    "StepTimeout",
    "TokensUnavailable",
    "Update",
    "UpdateCall",
    "UpdateRejected",
    "WaitTimeout",
    "Workflow",
    "WorkflowsError",
    "current_step",
    "step",
    "workflow",
]


def __getattr__(name: str) -> Any:
    """Import the engine, and with it the database, only for those who run workflows."""
    if name == "Engine":
        from lib_workflows.engine import Engine  # noqa: PLC0415

        return Engine
    if name == "RetentionPolicy":
        from lib_workflows.retention import RetentionPolicy  # noqa: PLC0415

        return RetentionPolicy
    if name == "RunHandle":
        from lib_workflows.run_handle import RunHandle  # noqa: PLC0415

        return RunHandle
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
