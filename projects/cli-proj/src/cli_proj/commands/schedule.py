"""`evs schedule`: start runs by the clock."""

from typing import Annotated, Any

from cyclopts import App, Parameter

from cli_proj import moments
from cli_proj.api import path_of
from cli_proj.commands import schedule_edit
from cli_proj.exit_codes import ExitCode
from cli_proj.messages import message
from cli_proj.options import Options
from cli_proj.run_input import input_of
from cli_proj.schedule_body import Timing, check_timing, policies_of
from cli_proj.schedule_view import COLUMNS, show_backfill, show_schedule, show_started, show_state, show_times
from cli_proj.session import connected

app = App(name="schedule")
app.command(schedule_edit.edit)


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
    timing: Timing = Timing(),  # noqa: B008
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
    acts_for_me: bool = False,
    options: Options = Options(),  # noqa: B008
) -> None:
    """Start runs of a workflow by the clock: --cron, --every or --at says when.

    Parameters
    ----------
    name
        What the schedule is called.
    workflow
        The workflow's name; see: evs workflow list.
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
    acts_for_me
        Its runs act for you at other services, as their workflow declares, for 90 days.
    """
    when = timing.body()
    check_timing(when, 'evs schedule create NAME WORKFLOW --cron "0 6 * * mon-fri" (or --every, --at)')
    policies = policies_of(
        overlap=overlap, catch_up=catch_up, catch_up_window=catch_up_window, jitter=jitter, queue=queue, tag=tag
    )
    body: dict[str, Any] = {"name": name, "workflow": workflow, **when, **policies}
    body |= {"paused": paused, "note": note, "acts_for_me": acts_for_me}
    async with connected(options) as session:
        body["input"] = await input_of(session, workflow, input, parameter)
        session.output.item(await session.app.post("/v1/schedules", body), show_state)


@app.command
async def show(name: str, /, *, options: Options = Options()) -> None:  # noqa: B008
    """Show a schedule, when it is due next, and its last runs.

    Parameters
    ----------
    name
        The schedule's name; see: evs schedule list.
    """
    async with connected(options) as session:
        session.output.item(await session.app.get(path_of("schedules", name)), show_schedule)


@app.command
async def preview(
    *,
    timing: Timing = Timing(),  # noqa: B008
    options: Options = Options(),  # noqa: B008
) -> None:
    """Say when a schedule with such a timing would be due next; nothing is made."""
    when = timing.body()
    check_timing(when, 'evs schedule preview --cron "0 6 * * mon-fri" (or --every, --at)')
    async with connected(options) as session:
        session.output.item(await session.app.post("/v1/schedules:preview", when), show_times)


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
        session.output.item(answer, show_state)


@app.command
async def resume(name: str, /, *, options: Options = Options()) -> None:  # noqa: B008
    """Go on with the next time from now.

    Parameters
    ----------
    name
        The schedule's name; see: evs schedule list.
    """
    async with connected(options) as session:
        session.output.item(await session.app.post(f"{path_of('schedules', name)}/resume"), show_state)


@app.command
async def trigger(name: str, /, *, options: Options = Options()) -> None:  # noqa: B008
    """Start a run now, beside whatever is under way; prints its id.

    Parameters
    ----------
    name
        The schedule's name; see: evs schedule list.
    """
    async with connected(options) as session:
        session.output.item(await session.app.post(f"{path_of('schedules', name)}/trigger"), show_started)


@app.command
async def backfill(
    name: str,
    /,
    *,
    since: str,
    until: str = "0s",
    dry_run: bool = False,
    options: Options = Options(),  # noqa: B008
) -> None:
    """Start the runs that a past range lacks; prints their ids.

    Parameters
    ----------
    name
        The schedule's name; see: evs schedule list.
    since
        The range's begin: 30m, 2h, 1d ago, or a time such as 2026-01-31T12:00:00Z.
    until
        Its end, likewise; without it now.
    dry_run
        Start nothing; prints the times that have no run.
    """
    body: dict[str, Any] = {"since": moments.read(since, option="--since"), "dry_run": dry_run}
    body["until"] = moments.read(until, option="--until")
    async with connected(options) as session:
        session.output.item(await session.app.post(f"{path_of('schedules', name)}/backfill", body), show_backfill)


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
