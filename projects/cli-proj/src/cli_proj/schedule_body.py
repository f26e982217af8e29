"""What of a schedule the command line says, as the AppService takes it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cyclopts import Parameter

from cli_proj import moments
from cli_proj.failure import usage
from cli_proj.run_input import read_pair


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """The options that say when: every command that takes a timing takes it whole."""

    cron: str | None = None
    'Minute, hour, day, month and weekday, such as "0 6 * * mon-fri"; or @hourly, @daily, @weekly, @monthly, @yearly.'
    timezone: str | None = None
    "Whose clock --cron goes by, such as Europe/Berlin; without it UTC."
    every: str | None = None
    "A fixed interval: 90s, 30m, 2h, 1d."
    at: tuple[str, ...] = ()
    "A time, such as 2026-12-31T18:00:00Z. May be repeated."
    since: str | None = None
    "No time of --cron or --every before this one: 2026-12-31T18:00:00Z."
    until: str | None = None
    "None after this one; then the schedule is over."

    def body(self) -> dict[str, Any]:
        """The timing as the AppService takes it, only what is said; raises `CommandFailed` that names the option."""
        found: dict[str, Any] = {"cron": self.cron, "timezone": self.timezone}
        found["every_seconds"] = moments.read_duration(self.every, option="--every") if self.every else None
        found["times"] = [moments.read(text, option="--at") for text in self.at] or None
        found["since"] = moments.read(self.since, option="--since") if self.since else None
        found["until"] = moments.read(self.until, option="--until") if self.until else None
        return {name: value for name, value in found.items() if value is not None}


def check_timing(timing: dict[str, Any], hint: str) -> None:
    """Raise `CommandFailed` where nothing says when."""
    if not timing.keys() & {"cron", "every_seconds", "times"}:
        raise usage("when?", hint=hint)


def policies_of(
    *,
    overlap: str | None,
    catch_up: str | None,
    catch_up_window: str | None,
    jitter: str | None,
    queue: str | None,
    tag: Sequence[str],
) -> dict[str, Any]:
    """What becomes of times that collide or are missed, and what its runs have; only what is said."""
    found: dict[str, Any] = {"overlap": overlap, "catch_up": catch_up, "queue": queue}
    found["tags"] = dict(read_pair(text, option="--tag") for text in tag) or None
    if catch_up_window is not None:
        found["catch_up_window_seconds"] = moments.read_duration(catch_up_window, option="--catch-up-window")
    if jitter is not None:
        found["jitter_seconds"] = moments.read_duration(jitter, option="--jitter")
    return {name: value for name, value in found.items() if value is not None}
