"""The context variables that code of a run finds: those of whoever opened the engine, and its own place and cause.

Not those of whoever starts or wakes it. That is another request, maybe of another person, in whose name the run would
publish; and no replay would find them.
"""

from contextvars import Context

from lib_events.event import current_cause
from lib_workflows.run_logs import Place, RunLog, place_in_run
from lib_workflows.runs.record import RunRecord


def surroundings_of(run: RunRecord, log: RunLog, given: Context) -> Context:
    """What a run's function, steps and transaction functions run in, each in a copy; `given` are the engine's."""
    made = given.copy()
    made.run(place_in_run.set, Place(log))
    made.run(current_cause.set, run.cause())
    return made
