"""`evs dead-letter`: events that a subscription gave up on."""

from cyclopts import App

from cli_proj import moments
from cli_proj.column import Column
from cli_proj.options import Options
from cli_proj.session import connected

app = App(name="dead-letter")

COLUMNS = (
    Column("id", lambda letter: letter["id"]),
    Column("subscription", lambda letter: letter["subscription"]),
    Column("event", lambda letter: letter["event_id"]),
    Column("attempts", lambda letter: letter["attempts"], align_right=True),
    Column("age", lambda letter: moments.age(letter["dead_at"]), align_right=True),
    Column("error", lambda letter: letter["error"], is_wide=True),
)


@app.command(name="list")
async def list_dead_letters(*, limit: int = 50, options: Options = Options()) -> None:  # noqa: B008
    """List the events that a subscription gave up on.

    Parameters
    ----------
    limit
        How many at most.
    """
    async with connected(options) as session:
        items = await session.app.pages("/v1/dead-letters", limit=limit)
        session.output.items(items, COLUMNS, empty="there are no dead letters")
