"""A step's place in its trace, for instrumentation that runs in it: what it tells of is within the step's span."""

from typing import TYPE_CHECKING

from lib_workflows.values.trace_places import decided_by, trace_of

if TYPE_CHECKING:
    from lib_events.tracing.traces import Traces
    from lib_workflows.authoring.step import StepRun


def ask_whether_traced(run: "StepRun", traces: "Traces") -> None:
    """Find out whether the trace that an attempt of a step is in is kept, before it begins."""
    correlation_id = run.correlation_id or run.run_id
    trace_id, parent = trace_of(run.trace, correlation_id)
    run.is_traced = traces.keeps(trace_id, decided_by(parent, correlation_id), run.name)


def be_within_step(run: "StepRun") -> None:
    """Let OpenTelemetry find itself within the step's span, in the present context variables."""
    from lib_events.tracing.traces import be_within  # noqa: PLC0415 - only where there are traces is it installed

    be_within(run.trace_context())
