"""`evs run`: start runs, follow them, change their course."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from cyclopts import App, Parameter

from cli_proj import moments
from cli_proj.column import Column
from cli_proj.exit_codes import ExitCode
from cli_proj.failure import usage
from cli_proj.messages import message, printable
from cli_proj.options import Options
from cli_proj.output import Item, Output, print_fields, write
from cli_proj.run_input import from_parameters, read_value
from cli_proj.session import Session, connected
from cli_proj.timeline import Timeline, describe_waits, event_line
from cli_proj.watch import Event, wait_for_run

app = App(name="run")

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
COLUMNS = (
    Column("id", lambda run: run["id"]),
    Column("workflow", lambda run: run["workflow"]),
    Column("status", lambda run: run["status"], is_status=True),
    Column("by", lambda run: _person(run["principal"]), is_optional=True),
    Column("age", lambda run: moments.age(run["created_at"]), align_right=True),
    Column("took", lambda run: moments.between(run["started_at"], run["ended_at"]), align_right=True, is_optional=True),
    Column("", lambda run: _remark(run), is_wide=True),  # noqa: PLW0108 - it is defined below
)


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
    """
    async with connected(options) as session:
        body: dict[str, Any] = {"workflow": workflow}
        if (given := await _input(session, workflow, input, parameter)) is not None:
            body["input"] = given
        if id is not None:
            body["id"] = id
        if tag:
            body["tags"] = dict(_pair(text, "--tag") for text in tag)
        if delay:
            body["delay_seconds"] = delay
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
    tag: str | None = None,
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
        Only with this status: queued, running, waiting, cancelling, completed, failed, cancelled or nondeterministic;
        several with commas.
    workflow
        Only of this workflow.
    tag
        Only with this tag, name=value or name.
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
            tag=tag.replace("=", ":", 1) if tag else None,
            q=query,
            since=_moment(since),
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
        run = await session.app.get(f"/v1/runs/{id}")
        history = await session.app.pages(f"/v1/runs/{id}/history", limit=1_000)
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
        run = await session.app.get(f"/v1/runs/{id}")
        return await _follow(session, run, quiet=False, timeout=timeout)


@app.command
async def cancel(id: str, /, *, reason: str | None = None, options: Options = Options()) -> None:  # noqa: A002, B008
    """Cancel a run: it undoes what it did, then ends as cancelled.

    Parameters
    ----------
    id
        The run's id.
    reason
        Why; kept with the run.
    """
    async with connected(options) as session:
        run = await session.app.post(f"/v1/runs/{id}/cancel", {"reason": reason} if reason else None)
        _show_change(session.output, run, "asked to cancel")


@app.command
async def retry(id: str, /, *, options: Options = Options()) -> None:  # noqa: A002, B008
    """Run a failed, cancelled or parked run again, from where it failed.

    Parameters
    ----------
    id
        The run's id.
    """
    async with connected(options) as session:
        _show_change(session.output, await session.app.post(f"/v1/runs/{id}/retry"), "started again")


@app.command
async def signal(
    id: str,  # noqa: A002
    name: str,
    /,
    *,
    input: Annotated[str | None, Parameter(name=("--input", "-i"))] = None,  # noqa: A002
    options: Options = Options(),  # noqa: B008
) -> None:
    """Send a run a signal; it is kept until the run waits for it.

    Parameters
    ----------
    id
        The run's id.
    name
        The signal's name.
    input
        What it says: JSON, @file, or @- for standard input.
    """
    payload = None if input is None else read_value(input, option="--input")
    async with connected(options) as session:
        run = await session.app.call("POST", f"/v1/runs/{id}/signals/{name}", body=payload)
        _show_change(session.output, run, f"was sent {name}")


async def _input(session: Session, workflow: str, given: str | None, parameters: Sequence[str]) -> Any:
    if given is not None and parameters:
        raise usage("--input and -p must not be used together; put everything into one of them")
    if given is not None:
        return read_value(given, option="--input")
    if not parameters:
        return {} if (await _schema(session, workflow)) is not None else None
    return from_parameters(parameters, await _schema(session, workflow))


async def _schema(session: Session, workflow: str) -> dict[str, Any] | None:
    schema: dict[str, Any] | None = (await session.app.get(f"/v1/workflows/{workflow}"))["input_schema"]
    return schema


async def _follow(session: Session, run: dict[str, Any], *, quiet: bool, timeout: float | None) -> int:  # noqa: ASYNC109
    output = session.output
    if not quiet and output.is_table and sys.stdout.isatty():
        from cli_proj.waterfall import LiveWaterfall  # noqa: PLC0415 - only a terminal needs it

        with LiveWaterfall() as picture:
            ended = await wait_for_run(session.app, run, picture.change, timeout=timeout)
    else:
        tell = _ignore if quiet else _line_teller(output)
        ended = await wait_for_run(session.app, run, tell, timeout=timeout, from_start=not quiet)
        if quiet or output.is_table:
            output.item(ended, show_run if quiet else _show_end)
    return ExitCode.OK if ended["status"] == "completed" else ExitCode.FAILED


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


def _show_end(run: Item) -> None:
    error = run.get("error")
    what = f": {error['type']}: {error['message']}" if error else ""
    took = moments.between(run["started_at"], run["ended_at"])
    write(printable(f"{moments.clock(run['ended_at'])}  {run['status']} after {took}{what}") + "\n")


def show_run(run: Item) -> None:
    """Print a run for a person: facts, result, and its operations as a waterfall."""
    from cli_proj.output import console  # noqa: PLC0415
    from cli_proj.waterfall import draw  # noqa: PLC0415

    error = run.get("error")
    print_fields(
        (
            ("id", run["id"]),
            ("workflow", f"{run['workflow']} version {run['version']}"),
            ("status", run["status"]),
            ("waits for", describe_waits(run.get("waiting_for") or [])),
            ("by", _person(run["principal"])),
            ("created", f"{run['created_at']} ({moments.age(run['created_at'])} ago)"),
            ("took", moments.between(run["started_at"], run["ended_at"])),
            ("parent", run.get("parent")),
            ("tags", run.get("tags")),
            ("input", _shorten(run.get("input"))),
            ("output", _shorten(run.get("output"))),
            ("error", f"{error['type']}: {error['message']}" if error else None),
            ("views", run.get("views")),
        )
    )
    if run.get("history"):
        timeline = Timeline(dict(run))
        timeline.take_snapshot(run, run["history"])
        screen = console()
        screen.print(draw(timeline, width=min(screen.width, 120)))


def _shorten(value: Any) -> Any:
    """Show the beginning of long texts: -o json shows them whole."""
    if isinstance(value, str):
        return value if len(value) <= 200 else f"{value[:160]}… ({len(value)} characters)"
    if isinstance(value, dict):
        return {name: _shorten(part) for name, part in value.items()}
    if isinstance(value, list) and len(value) > 5:
        return [*(_shorten(part) for part in value[:3]), f"… ({len(value)} in all)"]
    return value


def _show_change(output: Output, run: Item, what: str) -> None:
    output.item(run, lambda changed: write(f"{printable(changed['id'])} {what}; it is {changed['status']}\n"))


def _remark(run: Item) -> str:
    if run.get("error"):
        return str(run["error"]["message"])
    if run.get("progress"):
        return f"{run['progress']['fraction']:.0%} {run['progress']['text']}"
    return describe_waits(run.get("waiting_for") or []) if run["status"] == "waiting" else ""


def _person(principal: Item | None) -> str:
    return (principal["username"] or principal["subject"]) if principal else ""


def _pair(text: str, option: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise usage(f"{option} must be name=value, got {text!r}")
    return name, value


def _moment(text: str | None) -> str | None:
    """Read `30m` or an RFC 3339 time."""
    if text is None:
        return None
    if text[-1:] in UNITS and text[:-1].isdigit():
        return (datetime.now(UTC) - timedelta(seconds=int(text[:-1]) * UNITS[text[-1]])).isoformat()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise usage(f"--since must be 30m, 2h, 1d or a time such as 2026-01-31T12:00:00Z, got {text!r}") from None
    return (moment if moment.tzinfo else moment.astimezone()).isoformat()
