"""`evs queue`: what waits, how much may be under way, and whether anything begins."""

import re
from collections.abc import Callable
from typing import Any

from cyclopts import App

from cli_proj import moments
from cli_proj.api import path_of
from cli_proj.failure import usage
from cli_proj.options import Options
from cli_proj.queue_view import COLUMNS, show_queue, show_state
from cli_proj.session import connected

app = App(name="queue")

NONE = "none"
RATE = re.compile(r"(\d{1,7})/(\d*[smhd])")


@app.command(name="list")
async def list_queues(*, limit: int = 50, options: Options = Options()) -> None:  # noqa: B008
    """List the queues with what they hold, by name.

    Parameters
    ----------
    limit
        How many at most.
    """
    async with connected(options) as session:
        session.output.items(await session.app.pages("/v1/queues", limit=limit), COLUMNS, empty="there are no queues")


@app.command
async def show(name: str, /, *, options: Options = Options()) -> None:  # noqa: B008
    """Show a queue: its limits, what waits and what is under way.

    Parameters
    ----------
    name
        The queue's name; see: evs queue list.
    """
    async with connected(options) as session:
        session.output.item(await session.app.get(path_of("queues", name)), show_queue)


@app.command
async def limit(
    name: str,
    /,
    *,
    concurrency: str | None = None,
    rate: str | None = None,
    key: str | None = None,
    per_key: str | None = None,
    rate_per_key: str | None = None,
    options: Options = Options(),  # noqa: B008
) -> None:
    """Let only so many runs of a queue, or of each key, be under way or begin in a time; the rest stays as it is.

    Parameters
    ----------
    name
        The queue's name; see: evs queue list.
    concurrency
        Runs under way at most, from their beginning to their end; or none.
    rate
        Runs that begin in a time, such as 100/1m or 5/s: so many at once after a rest, and then steadily; or none.
    key
        What runs take turns by, such as customer: the --queue-key they are started with; or none.
    per_key
        Runs of each key under way at most; or none.
    rate_per_key
        Runs of each key that begin in a time, such as 10/1m; or none.
    """
    texts = {"concurrency": concurrency, "rate": rate, "key": key, "per_key": per_key, "rate_per_key": rate_per_key}
    changes = {name: READERS[name](text, option_of(name)) for name, text in texts.items() if text is not None}
    if not changes:
        raise usage("which limit?", hint="evs queue limit NAME --concurrency 5 --rate 100/1m")
    async with connected(options) as session:
        path = path_of("queues", name)
        known = await session.app.get(path)
        body = {name: known[name] for name in texts} | changes
        session.output.item(await session.app.call("PUT", path, body=body), show_state)


@app.command
async def pause(name: str, /, *, note: str = "", options: Options = Options()) -> None:  # noqa: B008
    """Let no run of a queue begin until it is resumed; those under way go on.

    Parameters
    ----------
    name
        The queue's name; see: evs queue list.
    note
        Why; shown with the queue.
    """
    async with connected(options) as session:
        session.output.item(await session.app.post(f"{path_of('queues', name)}/pause", {"note": note}), show_state)


@app.command
async def resume(name: str, /, *, options: Options = Options()) -> None:  # noqa: B008
    """Let runs of a queue begin again.

    Parameters
    ----------
    name
        The queue's name; see: evs queue list.
    """
    async with connected(options) as session:
        session.output.item(await session.app.post(f"{path_of('queues', name)}/resume"), show_state)


def option_of(limit: str) -> str:
    """The option that sets a limit."""
    return f"--{limit.replace('_', '-')}"


def _count(text: str, option: str) -> int | None:
    if text == NONE:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise usage(f"{option} must be a number of runs from 1 on, or none, got {text!r}")
    return int(text)


def _rate(text: str, option: str) -> dict[str, Any] | None:
    if text == NONE:
        return None
    found = RATE.fullmatch(text)
    if found is None:
        raise usage(f"{option} must be runs in a time, such as 100/1m or 5/s, or none, got {text!r}")
    duration = found[2] if found[2][0].isdecimal() else f"1{found[2]}"
    return {"runs": int(found[1]), "seconds": moments.read_duration(duration, option=option)}


def _name(text: str, _option: str) -> str | None:
    return None if text == NONE else text


READERS: dict[str, Callable[[str, str], Any]] = {
    "concurrency": _count,
    "rate": _rate,
    "key": _name,
    "per_key": _count,
    "rate_per_key": _rate,
}
