"""`evs run logs`: what a run and its steps logged."""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Annotated, Any

from cyclopts import Parameter

from cli_proj import moments
from cli_proj.api import Service, path_of
from cli_proj.messages import message, printable
from cli_proj.options import Options
from cli_proj.output import Output
from cli_proj.printing import write
from cli_proj.session import connected
from cli_proj.timeline import ENDED

LINES = 10_000
LOOK_AGAIN_SECONDS = 1.0  # lines are no events: nothing tells of new ones


async def logs(
    id: str,  # noqa: A002 - the word of the command line
    /,
    *,
    follow: Annotated[bool, Parameter(name=("--follow", "-f"))] = False,
    options: Options = Options(),  # noqa: B008 - frozen
) -> None:
    """Print what a run and its steps logged. The last lines before a crash may be missing.

    Parameters
    ----------
    id
        The run's id.
    follow
        Go on until the run has ended.
    """
    async with connected(options) as session:
        if follow:
            async for line in _follow(session.app, id):
                _tell(session.output, line)
            return
        lines = await session.app.pages(path_of("runs", id, "logs"), limit=LINES)
        if not session.output.is_table:
            session.output.items(lines, (), empty="")
            return
        for line in lines:
            _tell(session.output, line)
        if not lines:
            message("the run has logged nothing so far")


async def _follow(app: Service, run_id: str) -> AsyncIterator[dict[str, Any]]:
    """Yield the lines of a run as they come, until it has ended and there are no more."""
    after = 0
    while True:
        # Asked first: the lines of a run that has ended are all there.
        has_ended = (await app.get(path_of("runs", run_id)))["status"] in ENDED
        for line in await app.pages(path_of("runs", run_id, "logs"), limit=LINES, after=after):
            after = line["number"]
            yield line
        if has_ended:
            return
        await asyncio.sleep(LOOK_AGAIN_SECONDS)


def _tell(output: Output, line: dict[str, Any]) -> None:
    if not output.is_table:
        output.record(line)
        return
    attempt = f" #{line['attempt']}" if (line["attempt"] or 1) > 1 else ""
    where = f" [{line['operation']}{attempt}]" if line["operation"] else ""
    text = f"{moments.clock(line['at'])} {line['level']:<7} {line['logger']}{where}: {line['message']}"
    write("\n".join(printable(part) for part in text.splitlines()) + "\n")
    sys.stdout.flush()
