"""When a schedule is due: by a cron expression, at a fixed interval, or at times in a list. Pure: it asks no clock.

Each kind says which time comes `after` another; everything else follows. A time is microseconds since the epoch.
"""

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from lib_events.clock import EPOCH, MICROSECOND, to_datetime, to_micros
from lib_workflows.errors import ScheduleInvalid
from lib_workflows.values.durations import LONGEST_SECONDS

EXPRESSION_CHARACTERS = 256
TIMES_LIMIT = 1_000
SHORTEST_INTERVAL = timedelta(seconds=1)
DAY = timedelta(days=1)
MINUTE_MICROS = 60_000_000
LAST = to_micros(datetime(9_900, 1, 1, tzinfo=UTC))  # nothing is due later: there the calendar ends, near enough

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
FIELDS = (("minute", 59), ("hour", 23), ("day of month", 31), ("month", 12), ("day of week", 7))
STEP = re.compile(r"/(\d+)")


@dataclass(frozen=True, slots=True)
class Cron:
    """Times by a cron expression of five fields, or an alias such as `@daily`, in an IANA time zone.

    An expression that leaves the hour open (`*`) goes by time that passes: `*/15 * * * *` is due every quarter of an
    hour, whatever the clocks do. Any other one goes by the clock on the wall, and each of its times is due once (RFC
    5545 section 3.3.5): one that clocks skip, as long after the change as it would have been without it; one that
    comes twice, the first time.
    """

    expression: str
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        """Raises `ScheduleInvalid`."""
        _zone(self.timezone)
        fields = _fields(self.expression)
        if self._first(fields) is None:
            raise ScheduleInvalid("cron", f"must be due some day, got {self.expression!r}, which never is")

    def after(self, at: int) -> int | None:
        """The first time after `at`."""
        if at > LAST:
            return None
        fields = _fields(self.expression)
        return _after_passing(fields, self.timezone, at) if fields[1] == "*" else _after_wall(fields, self.timezone, at)

    def as_json(self) -> dict[str, Any]:
        """As rows and the API keep it."""
        return {"cron": self.expression, "timezone": self.timezone}

    def _first(self, fields: Sequence[str]) -> datetime | None:
        # The library gives up after fifty years, and they hold every calendar there is.
        try:
            return next(CronSim(" ".join(fields), datetime(2000, 1, 1)), None)  # noqa: DTZ001 - on the wall
        except CronSimError as error:
            raise ScheduleInvalid("cron", _problem(self.expression, fields, str(error))) from error


@dataclass(frozen=True, slots=True)
class Every:
    """Times at a fixed interval, counted from `start`; without one from the epoch: every hour is on the hour, UTC."""

    interval: timedelta
    start: datetime = EPOCH

    def __post_init__(self) -> None:
        """Raises `ScheduleInvalid`."""
        if not isinstance(self.interval, timedelta) or not (
            SHORTEST_INTERVAL <= self.interval < timedelta(seconds=LONGEST_SECONDS)
        ):
            raise ScheduleInvalid("every", f"must be 1 s up to 100 years, got {self.interval!s:.100}")
        _check_aware("start", self.start)

    def after(self, at: int) -> int | None:
        """The first time after `at`."""
        interval, start = self.interval // MICROSECOND, to_micros(self.start)
        following = start if at < start else start + ((at - start) // interval + 1) * interval
        return following if following <= LAST else None

    def as_json(self) -> dict[str, Any]:
        """As rows and the API keep it."""
        start = {} if self.start == EPOCH else {"start": self.start.astimezone(UTC).isoformat()}
        return {"every_seconds": self.interval.total_seconds(), **start}


@dataclass(frozen=True, slots=True)
class At:
    """The times of a list; when the last one has passed, the schedule rests."""

    times: tuple[datetime, ...]

    def __post_init__(self) -> None:
        """Raises `ScheduleInvalid`."""
        if not 1 <= len(self.times) <= TIMES_LIMIT:
            raise ScheduleInvalid("times", f"must be 1 to {TIMES_LIMIT}, got {len(self.times)}")
        for moment in self.times:
            _check_aware("times", moment)
        object.__setattr__(self, "times", tuple(sorted({moment.astimezone(UTC) for moment in self.times})))

    def after(self, at: int) -> int | None:
        """The first time after `at`."""
        place = bisect_right(self.times, at, key=to_micros)
        return to_micros(self.times[place]) if place < len(self.times) else None

    def as_json(self) -> dict[str, Any]:
        """As rows and the API keep it."""
        return {"times": [moment.isoformat() for moment in self.times]}


@dataclass(frozen=True, slots=True)
class Between:
    """The times of another timing from `since` up to `until`, both included; what is left out has no bound.

    When the last one has passed, the schedule rests.
    """

    timing: Cron | Every
    since: datetime | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        """Raises `ScheduleInvalid`."""
        if not isinstance(self.timing, Cron | Every):
            raise ScheduleInvalid("since", f"must bound Cron(…) or Every(…), got {self.timing!r:.80}")
        for field in ("since", "until"):
            if getattr(self, field) is not None:
                _check_aware(field, getattr(self, field))
        if self.until is not None and self.after(0) is None:
            raise ScheduleInvalid("until", f"must leave a time that is due, got {self.until}; say a later one")

    def after(self, at: int) -> int | None:
        """The first time after `at`."""
        found = self.timing.after(at if self.since is None else max(at, to_micros(self.since) - 1))
        return None if found is None or (self.until is not None and found > to_micros(self.until)) else found

    def as_json(self) -> dict[str, Any]:
        """As rows and the API keep it."""
        bounds = {"since": self.since, "until": self.until}
        return self.timing.as_json() | {
            name: moment.astimezone(UTC).isoformat() for name, moment in bounds.items() if moment is not None
        }


type Timing = Cron | Every | At | Between
TIMINGS = (Cron, Every, At, Between)


def bounded(timing: Cron | Every, since: datetime | None, until: datetime | None) -> Timing:
    """The timing itself where there is no bound; raises `ScheduleInvalid`."""
    return timing if since is None and until is None else Between(timing, since, until)


def read_timing(value: Mapping[str, Any]) -> Timing:
    """What `as_json` has written."""
    if "times" in value:
        return At(tuple(map(datetime.fromisoformat, value["times"])))
    since, until, start = (_read_moment(value.get(name)) for name in ("since", "until", "start"))
    if "cron" in value:
        return bounded(Cron(value["cron"], value["timezone"]), since, until)
    return bounded(Every(timedelta(seconds=value["every_seconds"]), start or EPOCH), since, until)


def _read_moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def times_after(timing: Timing, at: int, limit: int, until: int | None = None) -> list[int]:
    """The next times, at most `limit` of them, none after `until`."""
    found: list[int] = []
    while len(found) < limit and (following := timing.after(found[-1] if found else at)) is not None:
        if until is not None and following > until:
            break
        found.append(following)
    return found


def latest(timing: Timing, after: int, until: int) -> int | None:
    """The last time in `after < time <= until`; looks back ever further, so that a year of seconds costs little."""
    if until <= after:
        return None
    back = MINUTE_MICROS
    while True:
        start = max(after, until - back)
        found = timing.after(start)
        if found is not None and found <= until:
            break
        if start == after:
            return None
        back *= 4
    while (later := timing.after(found)) is not None and later <= until:
        found = later
    return found


# Cron


def _after_passing(fields: Sequence[str], timezone: str, at: int) -> int | None:
    """Every minute that passes is looked at, whatever the clock on the wall does in between."""
    for moment in CronSim(" ".join(fields), to_datetime(at).astimezone(_zone(timezone))):
        if (found := to_micros(moment)) > at:
            return found
    return None


def _after_wall(fields: Sequence[str], timezone: str, at: int) -> int | None:
    zone = _zone(timezone)
    here = to_datetime(at).astimezone(zone)
    # Where clocks have gone forward within a day, a time they have skipped may be still to come.
    forward = max(timedelta(), _offset(here) - _offset((to_datetime(at) - DAY).astimezone(zone)))
    best: int | None = None
    until: datetime | None = None
    for wall in CronSim(" ".join(fields), here.replace(tzinfo=None, fold=0) - forward):
        if until is not None and wall >= until:
            break
        moment = to_micros(wall.replace(tzinfo=zone))
        if moment > at and (best is None or moment < best):
            # One that is skipped comes later than it says: one that says more may come first.
            best, until = moment, to_datetime(moment).astimezone(zone).replace(tzinfo=None)
    return best


def _offset(moment: datetime) -> timedelta:
    return moment.utcoffset() or timedelta()


@lru_cache(maxsize=1_000)
def _fields(expression: str) -> tuple[str, ...]:
    """The five fields; an hour field that means every hour is `*`."""
    if not isinstance(expression, str) or not expression.isascii() or len(expression) > EXPRESSION_CHARACTERS:
        raise ScheduleInvalid("cron", f"must be at most {EXPRESSION_CHARACTERS} ASCII characters")
    fields = ALIASES.get(expression.strip().lower(), expression).upper().split()
    if expression.strip().startswith("@") and len(fields) == 1:
        raise ScheduleInvalid("cron", f"must be one of {', '.join(ALIASES)}, or five fields, got {expression!r}")
    if len(fields) != len(FIELDS):
        names = ", ".join(name for name, _ in FIELDS)
        raise ScheduleInvalid("cron", f"must have 5 fields ({names}), got {len(fields)} in {expression!r}")
    for field, (name, most) in zip(fields, FIELDS, strict=True):
        if any(int(step) > most for step in STEP.findall(field)):
            raise ScheduleInvalid("cron", f"must have a step of at most {most} in its {name}, got {field!r}; use every")
    if fields[1] in ("*/1", "0-23", "0-23/1"):
        fields[1] = "*"
    return tuple(fields)


def _problem(expression: str, fields: Sequence[str], error: str) -> str:
    named = error.removeprefix("Bad ").replace("-", " ")
    for field, (name, _) in zip(fields, FIELDS, strict=True):
        if name == named:
            return f"must name a valid {name}, got {field!r} in {expression!r}"
    return f"must be a cron expression, got {expression!r}: {error}"


@lru_cache(maxsize=1_000)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, TypeError, LookupError) as error:
        raise ScheduleInvalid(
            "timezone", f"must be an IANA time zone such as Europe/Berlin, got {name!r:.80}"
        ) from error


def _check_aware(field: str, moment: datetime) -> None:
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise ScheduleInvalid(field, f"must be a datetime with a time zone, got {moment!r:.80}; add one (UTC)")
