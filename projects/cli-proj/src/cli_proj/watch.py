"""Follows a run until it ends: snapshot first, then events, and again after every cut of the stream."""

import asyncio
import json
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from cli_proj.api import OPENED, RECONNECT_SECONDS, Service, Unavailable, path_of
from cli_proj.exit_codes import ExitCode
from cli_proj.failure import CommandFailed
from cli_proj.timeline import RUN_ENDED, RUN_UNDOING, Timeline, happened_before

HISTORY_ROWS = 1_000

type Event = dict[str, Any]
type OnChange = Callable[[Timeline, Event | None], None]


async def follow_run(
    app: Service, run: dict[str, Any], on_change: OnChange, *, from_start: bool = False
) -> dict[str, Any]:
    """Call `on_change` at every change, with the event that told of it, until the run has ended; returns the run.

    The events wake and inform; what counts in the end is what the service says about the run. With `from_start`
    a run that has ended is told from its first event, too.
    """
    timeline = Timeline(dict(run))
    async with aclosing(app.follow(path_of("runs", run["id"], "events"))) as stream:
        async for event in stream:
            told = None if event.type == OPENED else _decode(event.data)
            if told is None or _tells_of_a_turn(told, timeline):
                await _refresh(app, timeline)
                on_change(timeline, told)
                if timeline.has_ended and (_is_last(told, timeline) or (told is None and not from_start)):
                    break
            elif timeline.apply(told) or from_start:
                on_change(timeline, told)
    return timeline.run


async def wait_for_run(
    app: Service,
    run: dict[str, Any],
    on_change: OnChange,
    *,
    timeout: float | None = None,  # noqa: ASYNC109 - the person's option
    from_start: bool = False,
) -> dict[str, Any]:
    """Follow a run, at most `timeout` seconds; the run itself goes on."""
    try:
        async with asyncio.timeout(timeout):
            return await follow_run(app, run, on_change, from_start=from_start)
    except TimeoutError:
        text = f"run {run['id']} has not ended within {timeout:g} s; it goes on"
        raise CommandFailed(text, hint=resume_command(run), code=ExitCode.TIMEOUT) from None


def resume_command(run: dict[str, Any]) -> str:
    """What follows the run again."""
    return f"evs run watch {run['id']}"


async def _refresh(app: Service, timeline: Timeline) -> None:
    """Take a snapshot; a service that is just being started again is waited for."""
    for seconds in RECONNECT_SECONDS:
        try:
            return await _take_snapshot(app, timeline)
        except Unavailable:
            await asyncio.sleep(seconds)
    return await _take_snapshot(app, timeline)


async def _take_snapshot(app: Service, timeline: Timeline) -> None:
    run_id = timeline.run["id"]
    run = await app.get(path_of("runs", run_id))
    timeline.take_snapshot(run, await app.pages(path_of("runs", run_id, "history"), limit=HISTORY_ROWS))


def _decode(text: str) -> Event | None:
    try:
        event = json.loads(text)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def _tells_of_a_turn(event: Event, timeline: Timeline) -> bool:
    """Whether the run has ended or begins to undo: of both its history says more than the event."""
    return event.get("type") in (*RUN_ENDED, RUN_UNDOING) and (event.get("data") or {}).get("run") == timeline.run["id"]


def _is_last(event: Event | None, timeline: Timeline) -> bool:
    """Whether this is the end that the run has now: a run that was retried has ended before."""
    return (
        event is not None
        and event.get("type") in RUN_ENDED
        and not happened_before(event.get("time"), timeline.run.get("ended_at"))
    )
