"""`evs schedule`: start runs by the clock."""

from typing import Annotated, Any

from cyclopts import App, Parameter

from cli_proj import moments
from cli_proj.api import path_of
from cli_proj.column import Column, Item
from cli_proj.exit_codes import ExitCode
from cli_proj.failure import usage
from cli_proj.messages import message, printable
from cli_proj.options import Options
from cli_proj.printing import print_fields, write
from cli_proj.run_input import input_of, read_pair
from cli_proj.session import connected

app = App(name="schedule")


def state_of(schedule: Item) -> str:
    """In one word whether it starts anything."""
    if schedule["paused"]:
        return "paused"
    return "active" if schedule["next_at"] or schedule["waiting_since"] else "over"


def when(schedule: Item) -> str:
    """Its timing as a person says it."""
    if schedule["cron"]:
        return f"{schedule['cron']} ({schedule['timezone']})"
    if schedule["every_seconds"]:
        return f"every {schedule['every_seconds']:g} s"
    return ", ".join(schedule["times"] or ())


COLUMNS = (
    Column("name", lambda schedule: schedule["name"]),
    Column("state", state_of, is_status=True),
    Column("workflow", lambda schedule: schedule["workflow"]),
    Column("next", lambda schedule: moments.ahead(schedule["next_at"]), align_right=True),
    Column("fired", lambda schedule: schedule["fired"], align_right=True, is_optional=True),
    Column("skipped", lambda schedule: schedule["skipped"], align_right=True, is_optional=True),
    Column("when", when, is_wide=True),
)
RUN_COLUMNS = (
    Column("run", lambda run: run["id"], is_wide=True),
    Column("status", lambda run: run["status"] or "gone", is_status=True),
    Column("why", lambda run: run["kind"]),
    Column("age", lambda run: moments.age(run["started_at"]), align_right=True),
)
FIELDS = (
    "name", "workflow", "input", "when", "state", "note", "overlap", "catch_up", "queue", "tags", "principal_name",
    "next_times", "waiting_since", "fired", "skipped", "created_at",
)  # fmt: skip


@app.command(name="list")
async def list_schedules(*, limit: int = 50, options: Options = Options()) -> None:  # noqa: B008
    """List the schedules, by name.

    Parameters
    ----------
    limit
        How many at most.
    """
    async with connected(options) as session:
        items = await session.app.pages("/v1/schedules", limit=limit)
        session.output.items(items, COLUMNS, empty="there are no schedules")


@app.command
async def create(
    name: str,
    workflow: str,
    /,
    *,
    cron: str | None = None,
    timezone: str | None = None,
    every: str | None = None,
    at: tuple[str, ...] = (),
    input: Annotated[str | None, Parameter(name=("--input", "-i"))] = None,  # noqa: A002 - the option's name
    parameter: Annotated[tuple[str, ...], Parameter(name=("--parameter", "-p"))] = (),
    queue: str | None = None,
    tag: tuple[str, ...] = (),
    overlap: str = "skip",
    catch_up: str = "one",
    catch_up_window: str = "1d",
    jitter: str = "0s",
    paused: bool = False,
    note: str = "",
    options: Options = Options(),  # noqa: B008
) -> None:
    """Start runs of a workflow by the clock: --cron, --every or --at says when.

    Parameters
    ----------
    name
        What the schedule is called.
    workflow
        The workflow's name; see: evs workflow list.
    cron
        Minute, hour, day of month, month and day of week, such as "0 6 * * mon-fri"; or @hourly, @daily, @weekly,
        @monthly, @yearly.
    timezone
        Whose clock --cron goes by, such as Europe/Berlin; without it UTC.
    every
        A fixed interval: 90s, 30m, 2h, 1d.
    at
        A time, such as 2026-12-31T18:00:00Z. May be repeated.
    input
        The input as JSON, @file, or @- for standard input.
    parameter
        One field of the input, name=value; name=@file reads the file. May be repeated.
    queue
        The queue of its runs; without it the workflow's.
    tag
        A tag of its runs, name=value. May be repeated.
    overlap
        While a run of it is under way: skip the time, allow another run, buffer_one (start one afterwards), or
        cancel_other (cancel it and start afterwards).
    catch_up
        Of several times that nobody was there for: one (the last one counts) or all.
    catch_up_window
        Times that are older start nothing: 10s to any number of days.
    jitter
        Start each run later by up to so much, so that not all come at once.
    paused
        Start nothing until it is resumed.
    note
        Why; shown with the schedule.
    """
    if not (cron or every or at):
        raise usage("when?", hint='evs schedule create NAME WORKFLOW --cron "0 6 * * mon-fri" (or --every, --at)')
    body: dict[str, Any] = {"name": name, "workflow": workflow, "overlap": overlap, "catch_up": catch_up}
    body |= {"cron": cron, "timezone": timezone, "queue": queue, "paused": paused, "note": note}
    body["every_seconds"] = moments.read_duration(every, option="--every") if every else None
    body["times"] = [moments.read(text, option="--at") for text in at] or None
    body["tags"] = dict(read_pair(text, option="--tag") for text in tag)
    body["catch_up_window_seconds"] = moments.read_duration(catch_up_window, option="--catch-up-window")
    body["jitter_seconds"] = moments.read_duration(jitter, option="--jitter")
    async with connected(options) as session:
        body["input"] = await input_of(session, workflow, input, parameter)
        session.output.item(await session.app.post("/v1/schedules", body), _show_state)


@app.command
async def show(name: str, /, *, options: Options = Options()) -> None:  # noqa: B008
    """Show a schedule, when it is due next, and its last runs.

    Parameters
    ----------
    name
        The schedule's name; see: evs schedule list.
    """
    async with connected(options) as session:
        session.output.item(await session.app.get(path_of("schedules", name)), _show)


@app.command
async def pause(name: str, /, *, note: str = "", options: Options = Options()) -> None:  # noqa: B008
    """Start nothing until it is resumed.

    Parameters
    ----------
    name
        The schedule's name; see: evs schedule list.
    note
        Why; shown with the schedule.
    """
    async with connected(options) as session:
        answer = await session.app.post(f"{path_of('schedules', name)}/pause", {"note": note})
        session.output.item(answer, _show_state)


@app.command
async def resume(name: str, /, *, options: Options = Options()) -> None:  # noqa: B008
    """Go on with the next time from now.

    Parameters
    ----------
    name
        The schedule's name; see: evs schedule list.
    """
    async with connected(options) as session:
        session.output.item(await session.app.post(f"{path_of('schedules', name)}/resume"), _show_state)


@app.command
async def trigger(name: str, /, *, options: Options = Options()) -> None:  # noqa: B008
    """Start a run now, beside whatever is under way; prints its id.

    Parameters
    ----------
    name
        The schedule's name; see: evs schedule list.
    """
    async with connected(options) as session:
        session.output.item(await session.app.post(f"{path_of('schedules', name)}/trigger"), _show_started)


@app.command
async def backfill(name: str, /, *, since: str, until: str = "0s", options: Options = Options()) -> None:  # noqa: B008
    """Start the runs that a past range lacks; prints their ids.

    Parameters
    ----------
    name
        The schedule's name; see: evs schedule list.
    since
        The range's begin: 30m, 2h, 1d ago, or a time such as 2026-01-31T12:00:00Z.
    until
        Its end, likewise; without it now.
    """
    body = {"since": moments.read(since, option="--since"), "until": moments.read(until, option="--until")}
    async with connected(options) as session:
        session.output.item(await session.app.post(f"{path_of('schedules', name)}/backfill", body), _show_started)


@app.command
async def delete(name: str, /, *, options: Options = Options()) -> int:  # noqa: B008
    """Forget a schedule; its runs stay.

    Parameters
    ----------
    name
        The schedule's name; see: evs schedule list.
    """
    async with connected(options) as session:
        await session.app.call("DELETE", path_of("schedules", name))
        message(f"{name} is deleted")
        return ExitCode.OK


def _show(schedule: Item) -> None:
    shown = dict(schedule) | {"when": when(schedule), "state": state_of(schedule)}
    print_fields((name, shown[name]) for name in FIELDS)
    if schedule["last_runs"]:
        write("\n")
        from cli_proj.table import print_table  # noqa: PLC0415 - only people need tables

        print_table(schedule["last_runs"], RUN_COLUMNS)


def _show_state(schedule: Item) -> None:
    coming = moments.ahead(schedule["next_at"])
    text = f"{state_of(schedule)}: {schedule['name']}" + (f", next {coming}" if coming else "")
    write(printable(text) + "\n")


def _show_started(started: Item) -> None:
    for run in started["runs"]:
        write(printable(run) + "\n")
    if not started["runs"]:
        message("every time in the range has its run")
