"""`evs status`: which services run, and how they are."""

import time
from pathlib import Path

from cli_proj import moments
from cli_proj.column import Column, Item
from cli_proj.exit_codes import ExitCode
from cli_proj.messages import DIM, message, styled
from cli_proj.options import OutputOption
from cli_proj.output import Output
from cli_proj.supervise.control import Answer, ask_status
from cli_proj.supervise.place import data_folder

MEGABYTE = 1_000_000


async def status(
    *,
    data: Path | None = None,
    json: bool = False,
    output: OutputOption = "table",
) -> int:
    """Show the services of a data folder; exit code 3 when nothing runs, 1 when something is not ready.

    Parameters
    ----------
    data
        Which one (default: EVS_DATA, or .evs here or above).
    json
        The same as -o json.
    output
        How to print the answer.
    """
    folder = data_folder(data)
    answer = await ask_status(folder)
    if answer is None:
        message(f"nothing runs on {folder}")
        return ExitCode.NOT_FOUND
    Output("json" if json else output).item(answer, _show)
    return ExitCode.OK if answer["ready"] else ExitCode.FAILED


COLUMNS = (
    Column("service", lambda service: service["service"]),
    Column("status", lambda service: service["status"], is_status=True),
    Column("url", lambda service: service["url"]),
    Column("pid", lambda service: service["pid"], align_right=True),
    Column("up", lambda service: _age(service["started_at"]), align_right=True),
    Column("restarts", lambda service: service["restarts"], align_right=True, is_optional=True),
    Column("memory", lambda service: _megabytes(service["memory_bytes"]), align_right=True),
    Column("", lambda service: service["why"] or "", is_wide=True),
)


def _show(answer: Item) -> None:
    from cli_proj.table import print_table  # noqa: PLC0415 - only people need tables

    print_table(answer["services"], COLUMNS)
    message(styled(f"data {answer['data']} · up {_age(answer['started_at'])} · {_total(answer)} in all", DIM))


def _total(answer: Answer | Item) -> str:
    parts = [answer["memory_bytes"], *(service["memory_bytes"] for service in answer["services"])]
    return _megabytes(sum(part or 0 for part in parts))


def _megabytes(count: int | None) -> str:
    return "" if count is None else f"{count / MEGABYTE:.0f} MB"


def _age(started_at: float | None) -> str:
    return "" if started_at is None else moments.brief(time.time() - started_at)
