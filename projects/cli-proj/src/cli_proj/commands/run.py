"""`evs run`: start runs, follow them, change their course."""

import asyncio
import sys
from typing import Annotated, Any

from cyclopts import App, Parameter

from cli_proj import moments
from cli_proj.api import path_of
from cli_proj.commands import run_compare, run_export, run_logs, run_steer
from cli_proj.exit_codes import ExitCode
from cli_proj.failure import usage
from cli_proj.messages import message, printable
from cli_proj.options import Options
from cli_proj.output import Output
from cli_proj.printing import write
from cli_proj.run_input import input_of, read_pair
from cli_proj.run_view import COLUMNS, show_end, show_run
from cli_proj.session import Session, connected
from cli_proj.timeline import Timeline, event_line
from cli_proj.watch import Event, resume_command, wait_for_run

app = App(name="run")
for steer in run_steer.COMMANDS:
    app.command(steer)
app.command(run_logs.logs)
app.command(run_compare.compare)
app.command(run_export.export)


@app.command
async def start(
    workflow: str,
    /,
    *,
    input: Annotated[str | None, Parameter(name=("--input", "-i"))] = None,  # noqa: A002 - the option's name
    parameter: Annotated[tuple[str, ...], Parameter(name=("--parameter", "-p"))] = (),
    wait: bool = False,
    watch: bool = False,
    timeout: float | None = None,  # noqa: ASYNC109 - the person's option
    idempotency_key: str | None = None,
    id: str | None = None,  # noqa: A002
    tag: tuple[str, ...] = (),
    delay: float = 0,
    debounce: str | None = None,
    debounce_limit: float | None = None,
    queue: str | None = None,
    queue_key: str | None = None,
    priority: int = 0,
    options: Options = Options(),  # noqa: B008
) -> int:
    """Start a run. With --wait or --watch the exit code tells how it ended: 0 completed, 1 not.

    Parameters
    ----------
    workflow
        The workflow's name; see: evs workflow list.
    input
        The input as JSON, @file, or @- for standard input.
    parameter
        One field of the input, name=value; name=@file reads the file. May be repeated.
    wait
        Wait until the run has ended, and print it.
    watch
        Follow the run until it has ended.
    timeout
        With --wait or --watch: give up waiting after so many seconds (exit code 124); the run goes on.
    idempotency_key
        Started twice with the same key, it is one run.
    id
        The run's own id; the same id, workflow and input mean the same run.
    tag
        A tag, name=value. May be repeated.
    delay
        Start so many seconds from now.
    debounce
        A key: starts of the workflow with it are one run until it begins, --delay after the last of them and with its
        input.
    debounce_limit
        With --debounce: begin no later than so many seconds after the first of them.
    queue
        The queue it waits in; without it the workflow's.
    queue_key
        With whom it takes turns, where runs of its queue do; without it that follows from the input. Operators only.
    priority
        In its queue, higher ones begin earlier.
    """
    if timeout is not None and not (wait or watch):
        raise usage("--timeout must be used with --wait or --watch: without them nothing is waited for")
    if debounce_limit is not None and debounce is None:
        raise usage("--debounce-limit must be used with --debounce")
    async with connected(options) as session:
        body: dict[str, Any] = {"workflow": workflow}
        if (given := await input_of(session, workflow, input, parameter)) is not None:
            body["input"] = given
        tags = dict(read_pair(text, option="--tag") for text in tag)
        more: dict[str, Any] = {"id": id, "tags": tags, "delay_seconds": delay, "queue": queue, "priority": priority}
        more["queue_key"] = queue_key
        more["debounce"] = {"key": debounce, "limit_seconds": debounce_limit} if debounce is not None else None
        body |= {name: value for name, value in more.items() if value not in (None, 0, {})}
        headers = {"idempotency-key": idempotency_key} if idempotency_key else {}
        run = await session.app.post("/v1/runs", body, headers=headers)
        if wait or watch:
            return await _follow(session, run, quiet=not watch, timeout=timeout)
        session.output.item(run, lambda started: write(f"{printable(started['id'])}\n"))
        if session.output.is_table and sys.stderr.isatty():
            message(f"follow it with: evs run watch {run['id']}")
        return ExitCode.OK


@app.command(name="list")
async def list_runs(
    *,
    status: tuple[str, ...] = (),
    workflow: str | None = None,
    tag: tuple[str, ...] = (),
    query: Annotated[str | None, Parameter(name=("--query", "-q"))] = None,
    since: str | None = None,
    mine: bool = False,
    limit: int = 50,
    options: Options = Options(),  # noqa: B008
) -> None:
    """List runs, newest first.

    Parameters
    ----------
    status
        Only with this status: queued, running, waiting, cancelling, completed, failed, cancelled, nondeterministic or
        continued; several with commas.
    workflow
        Only of this workflow.
    tag
        Only with this tag, name=value or name. May be repeated: with all of them.
    query
        Only with this text in id, workflow, person or error.
    since
        Only from then on: 30m, 2h, 1d ago, or a time such as 2026-01-31T12:00:00Z.
    mine
        Only my own.
    limit
        How many at most.
    """
    async with connected(options) as session:
        items = await session.app.pages(
            "/v1/runs",
            limit=limit,
            status=[part for text in status for part in text.split(",")],
            workflow=workflow,
            tag=[text.replace("=", ":", 1) for text in tag],
            q=query,
            since=moments.read(since, option="--since"),
            mine="true" if mine else None,
        )
        session.output.items(items, COLUMNS, empty="there are no such runs")


@app.command
async def show(id: str, /, *, options: Options = Options()) -> None:  # noqa: A002, B008
    """Show a run: its input, its result, and what it did.

    Parameters
    ----------
    id
        The run's id.
    """
    async with connected(options) as session:
        run = await session.app.get(path_of("runs", id))
        history = await session.app.pages(path_of("runs", id, "history"), limit=1_000)
        session.output.item(run | {"history": history}, show_run)


@app.command
async def watch(
    id: str,  # noqa: A002
    /,
    *,
    timeout: float | None = None,  # noqa: ASYNC109
    options: Options = Options(),  # noqa: B008
) -> int:
    """Follow a run until it ends: a waterfall on a terminal, one line per change in a pipe.

    Ctrl-C only stops watching.

    Parameters
    ----------
    id
        The run's id.
    timeout
        Stop watching after so many seconds (exit code 124).
    """
    async with connected(options) as session:
        run = await session.app.get(path_of("runs", id))
        return await _follow(session, run, quiet=False, timeout=timeout)


async def _follow(session: Session, run: dict[str, Any], *, quiet: bool, timeout: float | None) -> int:  # noqa: ASYNC109
    """Follow a run as the output asks for; Ctrl-C leaves it alone and says how to come back."""
    output = session.output
    try:
        if quiet:
            ended = await wait_for_run(session.app, run, _ignore, timeout=timeout)
            output.item(ended, show_run)
        elif output.is_table and sys.stdout.isatty():
            ended = await _picture(session, run, timeout)
        else:
            ended = await wait_for_run(session.app, run, _line_teller(output), timeout=timeout, from_start=True)
            if output.is_table:
                show_end(ended)
    except asyncio.CancelledError:
        message(f"\ndetached; the run goes on. To follow it again: {resume_command(run)}")
        raise
    return ExitCode.OK if ended["status"] == "completed" else ExitCode.FAILED


async def _picture(session: Session, run: dict[str, Any], timeout: float | None) -> dict[str, Any]:  # noqa: ASYNC109
    from cli_proj.waterfall import LiveWaterfall  # noqa: PLC0415 - only a terminal needs it

    with LiveWaterfall() as picture:
        return await wait_for_run(session.app, run, picture.change, timeout=timeout)


def _ignore(_timeline: Timeline, _event: Event | None) -> None:
    """With --wait only the end counts."""


def _line_teller(output: Output) -> Any:
    def tell(_timeline: Timeline, event: Event | None) -> None:
        if event is None:
            return
        if output.is_table:
            write(printable(event_line(event)) + "\n")
            sys.stdout.flush()
        else:
            output.record(event)

    return tell
