"""`evs dead-letter`: events that a subscription gave up on."""

from cyclopts import App

from cli_proj import moments
from cli_proj.api import path_of
from cli_proj.column import Column, Item
from cli_proj.messages import message, printable
from cli_proj.options import Options
from cli_proj.printing import print_fields, write
from cli_proj.run_input import read_value
from cli_proj.session import connected

app = App(name="dead-letter")

COLUMNS = (
    Column("id", lambda letter: letter["id"]),
    Column("subscription", lambda letter: letter["subscription"]),
    Column("event", lambda letter: letter["event_type"] or letter["event_id"]),
    Column("attempts", lambda letter: letter["attempts"], align_right=True),
    Column("age", lambda letter: moments.age(letter["dead_at"]), align_right=True),
    Column("error", lambda letter: letter["error"], is_wide=True),
)


@app.command(name="list")
async def list_dead_letters(
    *,
    subscription: str | None = None,
    limit: int = 50,
    options: Options = Options(),  # noqa: B008
) -> None:
    """List the events that a subscription gave up on.

    Parameters
    ----------
    subscription
        Only of this subscription.
    limit
        How many at most.
    """
    async with connected(options) as session:
        items = await session.app.pages("/v1/dead-letters", limit=limit, subscription=subscription)
        session.output.items(items, COLUMNS, empty="there are no dead letters")


@app.command
async def show(id: int, /, *, options: Options = Options()) -> None:  # noqa: A002, B008
    """Show one with its event, the reason and where the handler failed.

    Parameters
    ----------
    id
        Its id; see: evs dead-letter list.
    """
    async with connected(options) as session:
        session.output.item(await session.app.get(path_of("dead-letters", str(id))), _show)


@app.command
async def redrive(id: int, /, *, data: str | None = None, options: Options = Options()) -> None:  # noqa: A002, B008
    """Have the event handled again; failing once more it rests here with the new reason.

    Parameters
    ----------
    id
        Its id; see: evs dead-letter list.
    data
        What the event should have said: JSON, @file, or @- for standard input.
    """
    body = None if data is None else {"data": read_value(data, option="--data")}
    async with connected(options) as session:
        letter = await session.app.post(path_of("dead-letters", str(id), "redrive"), body)
        session.output.item(letter, lambda _: write(f"dead letter {id} is handled again\n"))


@app.command
async def discard(id: int, /, *, options: Options = Options()) -> None:  # noqa: A002, B008
    """Let the event go: nobody handles it any more.

    Parameters
    ----------
    id
        Its id; see: evs dead-letter list.
    """
    async with connected(options) as session:
        await session.app.post(path_of("dead-letters", str(id), "discard"))
        message(f"dead letter {id} is discarded")


def _show(letter: Item) -> None:
    print_fields((name, value) for name, value in letter.items() if name != "stack")
    write("\n" + printable(letter["stack"]))
