"""Durable workflows: ordinary async functions that survive crashes."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lib_events.event import EventType
from lib_workflows.authoring.batch import Batch
from lib_workflows.authoring.context import Context
from lib_workflows.authoring.delegation import Delegation
from lib_workflows.authoring.messages import Decision, Principal, Signal, Update, UpdateCall
from lib_workflows.authoring.queue import Queue, QueueLimits, Rate
from lib_workflows.authoring.retry import Backoff
from lib_workflows.authoring.step import Step, current_step, step
from lib_workflows.authoring.timing import At, Between, Cron, Every
from lib_workflows.authoring.workflow import Registry, Workflow, workflow
from lib_workflows.errors import (
    Cancelled,
    ChildrenTooDeep,
    DefinitionError,
    DelegationRefused,
    NonRetryable,
    RunCancelled,
    RunConflict,
    RunFailed,
    RunIdTaken,
    StepFailed,
    StepTimeout,
    TokensUnavailable,
    UpdateRejected,
    WaitTimeout,
    WorkflowsError,
)

if TYPE_CHECKING:
    from lib_workflows.engine import Engine
    from lib_workflows.keeping.archive import FolderArchive
    from lib_workflows.keeping.retention import RetentionPolicy
    from lib_workflows.run_handle import RunHandle
    from lib_workflows.scheduling.schedule import Schedule
    from lib_workflows.workers.limits import Limits

__all__ = [
    "At",
    "Backoff",
    "Batch",
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
    "FolderArchive",
    "Limits",
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
    "RunIdTaken",
    "Schedule",
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


# What brings the database with it is imported only for those who run workflows.
RUNNING = {
    "Engine": "lib_workflows.engine",
    "FolderArchive": "lib_workflows.keeping.archive",
    "Limits": "lib_workflows.workers.limits",
    "RetentionPolicy": "lib_workflows.keeping.retention",
    "RunHandle": "lib_workflows.run_handle",
    "Schedule": "lib_workflows.scheduling.schedule",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, and its module, at first use."""
    if name in RUNNING:
        return getattr(import_module(RUNNING[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
