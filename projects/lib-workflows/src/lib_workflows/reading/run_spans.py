"""What events tell of runs, as spans of a trace: decided from each event alone, so telling twice changes nothing.

A span is told of once what it stands for has ended; that of a run comes after those within it. Neither inputs and
results nor what errors say are in it: who reads traces need not be who may read runs.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from lib_events.clock import to_micros
from lib_events.event import Event
from lib_events.trace_context import TraceContext, span_named
from lib_events.tracing.span import Attribute, Span
from lib_workflows.runs.lifecycle_events import (
    RUN_CANCELLED,
    RUN_COMPLETED,
    RUN_CONTINUED,
    RUN_FAILED,
    RUN_NONDETERMINISTIC,
    STEP_COMPLETED,
    STEP_FAILED,
    STEP_RETRIED,
)
from lib_workflows.values.trace_places import decided_by, operation_span, run_span, trace_of

type Keeps = Callable[[str, TraceContext | None, str], bool]

ENDINGS = {
    RUN_COMPLETED.name: "completed",
    RUN_FAILED.name: "failed",
    RUN_CANCELLED.name: "cancelled",
    RUN_CONTINUED.name: "continued",
}
STEP_ENDINGS = {STEP_COMPLETED.name: "completed", STEP_FAILED.name: "failed", STEP_RETRIED.name: "retried"}
TOLD = (*ENDINGS, *STEP_ENDINGS, RUN_NONDETERMINISTIC.name)


def span_of(event: Event, keeps: Keeps) -> Span | None:
    """The span that `event` tells of; None where its trace is not kept, or it does not say enough (older releases)."""
    data = event.data
    correlation_id = event.extensions.get("correlationid") or data["run"]
    trace_id, parent = trace_of(event.extensions.get("traceparent"), correlation_id)
    if not keeps(trace_id, decided_by(parent, correlation_id), data["workflow"]):
        return None
    run = TraceContext(trace_id, run_span(data["run"], data.get("life", 0)), is_sampled=True)
    if event.type in ENDINGS:
        return _span_of_run(event, run, parent)
    if event.type in STEP_ENDINGS:
        return _span_of_step(event, run)
    return _span_of_parking(event, run)


def _span_of_run(event: Event, run: TraceContext, parent: TraceContext | None) -> Span | None:
    data, life = event.data, event.data.get("life", 0)
    # A later life began when the one before had ended; how long it waited then is not told.
    began = data.get("started_at") if life else data.get("created_at")
    if began is None:
        return None
    more: dict[str, Attribute] = {"evs.run.status": ENDINGS[event.type]}
    if life:
        more["evs.run.life"] = life
    elif data.get("started_at") is not None:
        more["evs.run.queued_seconds"] = (_micros(data["started_at"]) - _micros(began)) / 1e6
    return _span(event, f"run {data['workflow']}", run, parent, _micros(began), more)


def _span_of_step(event: Event, run: TraceContext) -> Span | None:
    data = event.data
    if data.get("started_at") is None:
        return None
    span_id = operation_span(data["run"], data.get("life", 0), data["operation"], data["attempt"])
    more: dict[str, Attribute] = {
        "evs.operation": data["operation"],
        "evs.operation.kind": data["kind"],
        "evs.operation.name": data["name"],
        "evs.operation.attempt": data["attempt"],
        "evs.operation.status": STEP_ENDINGS[event.type],
    }
    context = TraceContext(run.trace_id, span_id, is_sampled=True)
    return _span(event, f"{data['kind']} {data['name']}", context, run, _micros(data["started_at"]), more)


def _span_of_parking(event: Event, run: TraceContext) -> Span:
    """A moment: a run that is parked has not ended, and may yet do so well."""
    context = TraceContext(run.trace_id, span_named("parked", event.id), is_sampled=True)
    return _span(event, f"park {event.data['workflow']}", context, run, to_micros(event.time), {})


def _span(  # noqa: PLR0917 - what a span is made of
    event: Event,
    name: str,
    context: TraceContext,
    parent: TraceContext | None,
    began_at: int,
    more: dict[str, Attribute],
) -> Span:
    data: dict[str, Any] = event.data
    return Span(
        name=name,
        context=context,
        parent=parent,
        began_at=began_at,
        ended_at=max(began_at, to_micros(event.time)),
        attributes={
            "evs.run.id": data["run"],
            "evs.workflow.name": data["workflow"],
            "evs.workflow.version": data["version"],
            **more,
        },
        error=data["error"]["type"] if "error" in data else None,
    )


def _micros(text: str) -> int:
    return to_micros(datetime.fromisoformat(text))
