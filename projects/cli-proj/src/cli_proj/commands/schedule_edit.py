"""`evs schedule edit`: what a schedule starts, and when, made different."""

from typing import Annotated

from cyclopts import Parameter

from cli_proj.api import path_of
from cli_proj.failure import usage
from cli_proj.options import Options
from cli_proj.run_input import input_of
from cli_proj.schedule_body import Timing, policies_of
from cli_proj.schedule_view import show_state
from cli_proj.session import connected


async def edit(
    name: str,
    /,
    *,
    timing: Timing = Timing(),  # noqa: B008
    input: Annotated[str | None, Parameter(name=("--input", "-i"))] = None,  # noqa: A002 - the option's name
    parameter: Annotated[tuple[str, ...], Parameter(name=("--parameter", "-p"))] = (),
    queue: str | None = None,
    tag: tuple[str, ...] = (),
    overlap: str | None = None,
    catch_up: str | None = None,
    catch_up_window: str | None = None,
    jitter: str | None = None,
    acts_for_me: bool | None = None,
    options: Options = Options(),  # noqa: B008
) -> None:
    """Change a schedule; what is left out stays, but a timing is said whole. Its runs start in your name from
    then on.

    Parameters
    ----------
    name
        The schedule's name; see: evs schedule list.
    input
        Another input, whole, as JSON, @file, or @- for standard input.
    parameter
        One field of another input, name=value; name=@file reads the file. May be repeated.
    queue
        The queue of its runs.
    tag
        The tags of its runs, all of them, name=value. May be repeated.
    overlap
        While a run of it is under way: skip, allow, buffer_one or cancel_other.
    catch_up
        Of several times that nobody was there for: one (the last one counts) or all.
    catch_up_window
        Times that are older start nothing.
    jitter
        Start each run later by up to so much.
    acts_for_me
        Its runs act for you from now on, for 90 days; with --acts-for-me=false for nobody.
    """
    body = timing.body()
    body |= policies_of(
        overlap=overlap, catch_up=catch_up, catch_up_window=catch_up_window, jitter=jitter, queue=queue, tag=tag
    )
    if acts_for_me is not None:
        body["acts_for_me"] = acts_for_me
    if not body and input is None and not parameter:
        raise usage("what is to be different?", hint=f'evs schedule edit {name} --cron "0 7 * * mon-fri"')
    async with connected(options) as session:
        path = path_of("schedules", name)
        if input is not None or parameter:
            workflow = (await session.app.get(path))["workflow"]
            body["input"] = await input_of(session, workflow, input, parameter)
        session.output.item(await session.app.call("PATCH", path, body=body), show_state)
