"""The commands of `evs run` that change a run's course, or ask it something."""

from typing import Annotated

from cyclopts import Parameter, validators

from cli_proj.api import path_of
from cli_proj.column import Item
from cli_proj.exit_codes import ExitCode
from cli_proj.messages import message, printable
from cli_proj.options import Options
from cli_proj.output import Output
from cli_proj.printing import plain, write
from cli_proj.run_input import read_value
from cli_proj.session import connected

LONGEST_WAIT_SECONDS = 25
"""How long the service may hold an update's answer back: less than the HTTP client waits for it."""

InputOption = Annotated[str | None, Parameter(name=("--input", "-i"))]
WaitOption = Annotated[int, Parameter(validator=validators.Number(gte=0, lte=LONGEST_WAIT_SECONDS))]


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
        run = await session.app.post(path_of("runs", id, "cancel"), {"reason": reason} if reason else None)
        _show_change(session.output, run, "was asked to cancel")


async def retry(id: str, /, *, options: Options = Options()) -> None:  # noqa: A002, B008
    """Run a failed, cancelled or parked run again, from where it failed.

    Parameters
    ----------
    id
        The run's id.
    """
    async with connected(options) as session:
        _show_change(session.output, await session.app.post(path_of("runs", id, "retry")), "was started again")


async def fork(
    id: str,  # noqa: A002
    /,
    *,
    from_step: str | None = None,
    input: InputOption = None,  # noqa: A002
    options: Options = Options(),  # noqa: B008
) -> None:
    """Start a new run that shares this one's history up to an operation.

    Parameters
    ----------
    id
        The run's id.
    from_step
        The first operation to do again, such as 3; see: evs run show ID -o json. Without it, everything.
    input
        Another input: JSON, @file, or @- for standard input.
    """
    body = {"from_step": from_step, "input": None if input is None else read_value(input, option="--input")}
    given = {name: value for name, value in body.items() if value is not None}
    async with connected(options) as session:
        run = await session.app.post(path_of("runs", id, "fork"), given)
        session.output.item(run, lambda forked: write(f"{printable(forked['id'])}\n"))


async def signal(
    id: str,  # noqa: A002
    name: str,
    /,
    *,
    input: InputOption = None,  # noqa: A002
    idempotency_key: str | None = None,
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
    idempotency_key
        Sent twice with the same key, it is one signal.
    """
    payload = None if input is None else read_value(input, option="--input")
    async with connected(options) as session:
        headers = _once(idempotency_key)
        run = await session.app.post(path_of("runs", id, "signals", name), payload, headers=headers)
        _show_change(session.output, run, f"was sent {name}")


async def update(
    id: str,  # noqa: A002
    name: str,
    /,
    *,
    input: InputOption = None,  # noqa: A002
    timeout: WaitOption = 10,  # noqa: ASYNC109 - the person's option
    idempotency_key: str | None = None,
    options: Options = Options(),  # noqa: B008
) -> int:
    """Send a run an update and print its answer; exit code 124 when the run has not answered in time.

    To read an answer that comes later, send the update with a key, and again with the same key.

    Parameters
    ----------
    id
        The run's id.
    name
        The update's name.
    input
        What it says: JSON, @file, or @- for standard input.
    timeout
        Give up waiting after so many seconds, at most 25 (exit code 124); the run keeps the update.
    idempotency_key
        Sent twice with the same key, it is one update.
    """
    payload = None if input is None else read_value(input, option="--input")
    async with connected(options) as session:
        headers = {"prefer": f"wait={timeout}"} | _once(idempotency_key)
        answer = await session.app.post(path_of("runs", id, "updates", name), payload, headers=headers)
        session.output.item(answer, _show_reply)
    return ExitCode.TIMEOUT if answer["status"] == "pending" else ExitCode.OK


async def view(id: str, name: str, /, *, options: Options = Options()) -> None:  # noqa: A002, B008
    """Print a view that the run has set.

    Parameters
    ----------
    id
        The run's id.
    name
        The view's name.
    """
    async with connected(options) as session:
        found = await session.app.get(path_of("runs", id, "views", name))
        session.output.item(found, lambda value: write(printable(plain(value)) + "\n"))


COMMANDS = (cancel, retry, fork, signal, update, view)


def _once(idempotency_key: str | None) -> dict[str, str]:
    return {"idempotency-key": idempotency_key} if idempotency_key else {}


def _show_change(output: Output, run: Item, what: str) -> None:
    output.item(run, lambda changed: write(f"{printable(changed['id'])} {what}; it is {changed['status']}\n"))


def _show_reply(answer: Item) -> None:
    if answer["status"] == "pending":
        message("the run has not answered yet; it keeps the update until it asks for it")
    else:
        write(printable(plain(answer["reply"])) + "\n")
