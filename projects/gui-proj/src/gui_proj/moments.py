"""Times and durations as people read them."""

from datetime import UTC, datetime, timedelta
from typing import Final

import htpy as h


def parse(text: str | None) -> datetime | None:
    """An RFC 3339 time, or None for none."""
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


def ago(text: str | None, *, now: datetime | None = None) -> h.Node:
    """A `<time>` that says how long ago; the page's script keeps it right and adds the local time."""
    return _distance(text, now, soon="just now", data_ago=True)


def ahead(text: str | None, *, now: datetime | None = None) -> h.Node:
    """The same of a time that is to come."""
    return _distance(text, now, soon="any moment", data_ago="ahead")


def _distance(text: str | None, now: datetime | None, *, soon: str, data_ago: str | bool) -> h.Node:
    moment = parse(text)
    if moment is None:
        return h.span(".muted")["—"]
    distance = (now or datetime.now(UTC)) - moment
    words = distance_words(distance, soon=soon)
    stamp = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return h.time(datetime=stamp, title=f"{moment:%Y-%m-%d %H:%M:%S} UTC", data_ago=data_ago)[words]


def utc_words(text: str) -> str:
    """Thu 26 Nov 2026, 05:00."""
    moment = datetime.fromisoformat(text).astimezone(UTC)
    return f"{moment:%a} {moment.day} {moment:%b %Y, %H:%M}" + (f"{moment:%S}".join((":", "")) if moment.second else "")


def distance_words(distance: timedelta, *, soon: str = "just now") -> str:
    seconds = distance.total_seconds()
    size = _size(abs(seconds))
    if size == "now":
        return soon
    return f"{size} ago" if seconds > 0 else f"in {size}"


def _size(seconds: float) -> str:
    if seconds < 5:
        return "now"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86400:.0f} d"


def duration(start: str | None, end: str | None, *, now: datetime | None = None) -> str:
    """How long something took, or takes until now; empty when it has not begun."""
    began = parse(start)
    if began is None:
        return ""
    ended = parse(end) or now or datetime.now(UTC)
    return seconds_words((ended - began).total_seconds())


UNITS: Final = {"s": 1, "min": 60, "h": 3_600, "d": 86_400}


def in_units(seconds: float) -> tuple[str, str]:
    """A duration as a number and the greatest unit that leaves it whole; of none, seconds."""
    unit = next((unit for unit in ("d", "h", "min") if seconds and seconds % UNITS[unit] == 0), "s")
    return f"{seconds / UNITS[unit]:.10g}", unit


def interval_words(seconds: float) -> str:
    """Exactly: 90 s, 2 h."""
    number, unit = in_units(seconds)
    return f"{number} {unit}"


def seconds_words(seconds: float) -> str:
    """0.4 ms, 12 ms, 3.2 s, 4 min 10 s, 2 h 5 min, 3 d 4 h."""
    seconds = max(seconds, 0.0)
    if seconds < 0.01:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, size, part, part_size in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // part_size
            return f"{whole // size} {unit}" + (f" {rest} {part}" if rest else "")
    return f"{whole} s"
