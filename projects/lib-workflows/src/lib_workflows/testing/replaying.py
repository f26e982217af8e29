"""Replays the history of a run against the code of today, without an engine."""

from typing import Any

from lib_workflows.authoring.context import Context, RunInfo
from lib_workflows.authoring.workflow import AnyWorkflow
from lib_workflows.engine import Engine
from lib_workflows.errors import Continued
from lib_workflows.execution.driver import Driver
from lib_workflows.execution.history import replay, tags_at_start
from lib_workflows.reading.history_export import export_run
from lib_workflows.runs import commands
from lib_workflows.runs.record import RunRecord
from lib_workflows.statements import HistoryRow


async def export_history(engine: Engine, run_id: str) -> dict[str, Any]:
    """A run and its history as JSON-able data, for `replay_history`."""
    return await engine.database.read(export_run, run_id)


def replay_history(workflow: AnyWorkflow, exported: dict[str, Any]) -> Any:
    """Replay an exported history against the code of today; raises `Nondeterministic` where they differ.

    Returns what the workflow returned (or raises what it raised); None while it is not at its end, and for a life that
    has continued as new.
    """
    record = RunRecord(**exported["run"])
    rows = [HistoryRow(**row) for row in exported["history"]]
    conductor = _OfflineConductor(record.info("/replay", tags_at_start(record, rows)))
    context = Context(conductor, workflow.encode_input)
    driver = Driver(record.life_name, lambda: workflow.function(context, *workflow.decode_input(record.input)))
    conductor.driver = driver
    try:
        replay(driver, rows, run_id=record.id, begun_at=record.started_at or record.created_at, resumed=True)
        outcome = driver.outcome
    finally:
        driver.close()
    if outcome is None or isinstance(outcome.error, Continued):
        return None
    if outcome.error is not None:
        raise outcome.error
    return outcome.value


class _OfflineConductor:
    """Drives a workflow without an engine."""

    driver: Driver

    def __init__(self, info: RunInfo) -> None:
        self._info = info

    def run_info(self) -> RunInfo:
        """See `Conductor`."""
        return self._info

    def now_micros(self) -> int:
        """See `Conductor`."""
        return self.driver.now

    def random_bytes(self) -> bytes:
        """See `Conductor`."""
        return self.driver.random_bytes()

    def report_progress(self, fraction: float, text: str) -> None:
        """See `Conductor`."""

    def is_patched(self, name: str) -> bool:
        """See `Conductor`."""
        return self.driver.patches.setdefault(name, not self.driver.is_replaying)

    def history_length(self) -> int:
        """See `Conductor`."""
        return self.driver.delivered

    signal_run = staticmethod(commands.signal_run)  # see `Conductor`
