"""A report every morning: `evs up --workflows examples/nightly_report.py`."""

from dataclasses import dataclass
from datetime import timedelta

from lib_workflows import Context, Cron, Engine, Schedule, workflow


@dataclass
class Report:
    """What was counted, and for which morning."""

    region: str
    scheduled_for: str


# --8<-- [start:declared]
@workflow(name="nightly-report", schedule=Cron("0 6 * * mon-fri", "Europe/Berlin"))
async def nightly_report(ctx: Context, region: str = "everywhere") -> Report:
    """Count what happened since yesterday."""
    return Report(region, ctx.run.tags["scheduled_for"])


# --8<-- [end:declared]


# --8<-- [start:made]
async def report_on_the_north(engine: Engine) -> Schedule:
    """Make a schedule with an input of its own, beside the declared one."""
    return await engine.schedules.create(
        "report-north",
        nightly_report,
        "north",
        timing=Cron("30 2 * * *", "Europe/Berlin"),  # due once a night, also when the clocks change
        overlap="buffer_one",
        catch_up_window=timedelta(hours=6),
        jitter=timedelta(minutes=5),
    )


# --8<-- [end:made]
