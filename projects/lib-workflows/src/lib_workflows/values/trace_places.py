"""Where runs and what they do are in which trace: ids that follow from theirs, the same for whoever asks.

So the log's follower, which makes spans of what has ended, and a step that asks where it is while it runs need know
nothing of each other, and what is told of twice is one span.
"""

from lib_events.trace_context import TraceContext, span_named, trace_named


def trace_of(traceparent: str | None, correlation_id: str) -> tuple[str, TraceContext | None]:
    """The id of a run's trace, and the span within which the run is.

    A run that began outside of any trace has its own, with whatever else is correlated with it.
    """
    parent = TraceContext.parse(traceparent)
    return (trace_named(correlation_id), None) if parent is None else (parent.trace_id, parent)


def decided_by(parent: TraceContext | None, correlation_id: str) -> TraceContext | None:
    """The span that says whether a run's trace is kept; None: nobody has been asked yet.

    A child of a run that began outside of any trace is in one, of which nothing is decided.
    """
    return None if parent is None or parent.trace_id == trace_named(correlation_id) else parent


def run_span(run_id: str, life: int) -> str:
    """The id of the span of a life of a run."""
    return span_named("run", run_id, life)


def operation_span(run_id: str, life: int, operation: str, attempt: int) -> str:
    """The id of the span of one attempt of an operation: a step, a transaction, a child, an undo."""
    return span_named("operation", run_id, life, operation, attempt)
