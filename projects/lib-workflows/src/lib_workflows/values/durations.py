"""Durations and moments that people give: refused where no timer could keep them."""

from datetime import datetime, timedelta

from lib_events.clock import to_micros
from lib_workflows.errors import DefinitionError

LONGEST_SECONDS = 3.2e9  # a hundred years, and a bit


def check_seconds(duration: timedelta | float, what: str) -> float:
    """The duration in seconds; raises `DefinitionError` unless it is one from 0 s to 100 years."""
    if isinstance(duration, timedelta):
        seconds = duration.total_seconds()
    elif isinstance(duration, int | float) and not isinstance(duration, bool):
        seconds = float(min(duration, LONGEST_SECONDS))
    else:
        raise DefinitionError(f"{what} must be a timedelta or a number of seconds, got {duration!r:.100}")
    if not 0 <= seconds < LONGEST_SECONDS:
        raise DefinitionError(f"{what} must be 0 s up to 100 years, got {duration!r:.100}")
    return seconds


def check_optional_seconds(duration: timedelta | float | None, what: str) -> float | None:
    """The same where there may be none."""
    return None if duration is None else check_seconds(duration, what)


def check_deadline(after: timedelta | None, what: str) -> timedelta | None:
    """How long something may take from its start; raises `DefinitionError` unless it is some time, if any."""
    if after is not None and (not isinstance(after, timedelta) or check_seconds(after, what) <= 0):
        raise DefinitionError(f"{what} must be a timedelta of more than 0 s, got {after!r:.100}")
    return after


def check_moment(moment: datetime, what: str) -> int:
    """The moment in microseconds; raises `DefinitionError` unless its time zone is known."""
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise DefinitionError(f"{what} must be a datetime with a time zone, got {moment!r:.100}; add one (UTC)")
    return to_micros(moment)
