"""`evs event`: read events, and publish your own."""

import json
import shutil
import sys
import uuid
from typing import Annotated, Any

from cyclopts import App, Parameter

from cli_proj import moments
from cli_proj.api import OPENED
from cli_proj.column import Item
from cli_proj.failure import not_found, usage
from cli_proj.messages import CYAN, DIM, message, printable, styled
from cli_proj.options import Options
from cli_proj.output import Output
from cli_proj.printing import print_fields, write
from cli_proj.run_input import read_value
from cli_proj.session import Session, connected

app = App(name="event")

LONGEST_DATA = 400
TYPE_WIDTH = 24
LAGGED = "evs.feed.lagged"


@app.command
async def tail(
    *,
    type: tuple[str, ...] = (),  # noqa: A002 - the option's name
    subject: str | None = None,
    after: str | None = None,
    all: bool = False,  # noqa: A002
    follow: Annotated[bool, Parameter(negative="--no-follow")] = True,
    options: Options = Options(),  # noqa: B008
) -> None:
    """Print events as they happen, one a line; stop with Ctrl-C.

    Parameters
    ----------
    type
        Only of this type, such as evs.run.* or order.shipment.sent. May be repeated.
    subject
        Only about this thing, such as a run's id.
    after
        Begin after this position.
    all
        Begin with the first event there is.
    follow
        Wait for more; --no-follow ends with what there is.
    """
    async with connected(options) as session:
        query: dict[str, Any] = {"types": ",".join(type) or None, "subject": subject}
        position = after
        if all or after is not None or not follow:
            position = await _print_past(session, query, after)
        if not follow:
            return
        async for told in session.app.follow("/v1/events", query=query, after=position):
            if told.type == LAGGED:
                message(f"too many at once: some were left out before {told.id}")
            elif told.type != OPENED:
                _print(session.output, json.loads(told.data) | {"position": told.id})


async def _print_past(session: Session, query: dict[str, Any], after: str | None) -> str:
    """Print what the log holds after a position; returns how far it was read."""
    while True:
        page = await session.app.get("/v1/events", **query, after=after, limit=200)
        for event in page["items"]:
            _print(session.output, event)
        after = page["next_cursor"]
        if after is None:
            return str(page["cursor"])


@app.command
async def publish(
    type: str,  # noqa: A002
    /,
    *,
    data: Annotated[str | None, Parameter(name=("--data", "-d"))] = None,
    subject: str | None = None,
    id: str | None = None,  # noqa: A002
    options: Options = Options(),  # noqa: B008
) -> None:
    """Publish an event of your own.

    Parameters
    ----------
    type
        Its type, in your own namespace, such as shop.order.placed; evs.* is reserved.
    data
        What it says: JSON, @file, or @- for standard input.
    subject
        What it is about.
    id
        Its id; published twice with the same id, it is one event.
    """
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": id or str(uuid.uuid4()),
        "source": "/evs",
        "type": type,
        "subject": subject,
        "data": None if data is None else read_value(data, option="--data"),
    }
    given = {name: value for name, value in event.items() if value is not None}
    async with connected(options) as session:
        body = json.dumps(given).encode()
        answer = await session.app.send_bytes("/v1/events", body, "application/cloudevents+json")
        session.output.item(answer or given, lambda _: write(f"{printable(given['id'])}\n"))


@app.command
async def show(position: str, /, *, options: Options = Options()) -> None:  # noqa: B008
    """Show one event whole.

    Parameters
    ----------
    position
        Its position, such as 1.42; evs event tail -o jsonl prints them.
    """
    epoch, _, number = position.partition(".")
    if not (epoch.isdecimal() and number.isdecimal()):
        raise usage(f"a position must look like 1.42, got {position!r}", hint="evs event tail -o jsonl prints them")
    async with connected(options) as session:
        page = await session.app.get("/v1/events", after=f"{epoch}.{max(int(number) - 1, 0)}", limit=1)
        if not page["items"] or page["items"][0]["position"] != position:
            raise not_found(f"there is no event at position {position} that you may see")
        session.output.item(page["items"][0], _show)


def _print(output: Output, event: Item) -> None:
    if output.is_table:
        write(event_row(event, width=shutil.get_terminal_size().columns if sys.stdout.isatty() else None) + "\n")
        sys.stdout.flush()
    else:
        output.record(event)


def event_row(event: Item, *, width: int | None) -> str:
    """One event in one line; a terminal of `width` gets as much of its data as there is room for."""
    data = json.dumps(event.get("data"), ensure_ascii=False) if event.get("data") is not None else ""
    time, kind = moments.clock(event.get("time")), printable(f"{event['type']:<{TYPE_WIDTH}}")
    subject, data = printable(event.get("subject") or ""), printable(data)
    room = LONGEST_DATA if width is None else max(width - len(f"{time}  {kind}  {subject}  "), 0)
    if len(data) > room:
        data = data[: room - 1] + "…" if room > 1 else ""
    styles = ((time, DIM), (kind, CYAN), (subject, 0), (data, DIM))
    return "  ".join(styled(text, style, stream=sys.stdout) for text, style in styles if text).rstrip()


def _show(event: Item) -> None:
    print_fields(event.items())
