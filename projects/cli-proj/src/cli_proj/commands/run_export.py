"""`evs run export`: a run and its history as a file that a test replays."""

import json

from cli_proj.api import path_of
from cli_proj.column import Item
from cli_proj.options import Options
from cli_proj.printing import write
from cli_proj.session import connected


async def export(id: str, /, *, options: Options = Options()) -> None:  # noqa: A002, B008
    """Export a run with its whole history as JSON: a test replays it against the code of today.

    For `replay_history` of `lib_workflows.testing`; for the archive of ended runs there is retention.

    Parameters
    ----------
    id
        The run's id.
    """
    async with connected(options) as session:
        session.output.item(await session.app.get(path_of("runs", id, "export")), show_export)


def show_export(found: Item) -> None:
    """Print it as JSON, for a person too: it is a file's content."""
    write(json.dumps(found, ensure_ascii=False, indent=2) + "\n")
