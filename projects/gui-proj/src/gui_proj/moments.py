"""Times and durations as people read them."""

from datetime import UTC, datetime, timedelta

import htpy as h


def parse(text: str | None) -> datetime | None:
    """An RFC 3339 time, or None for none."""
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


def ago(text: str | None, *, now: datetime | None = None) -> h.Node:
    """A `<time>` that says how long ago; the page's script keeps it right and adds the local time."""
    moment = parse(text)
    if moment is None:
        return h.span(".muted")["—"]
    distance = (now or datetime.now(UTC)) - moment
    words = distance_words(distance)
    stamp = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return h.time(datetime=stamp, title=f"{moment:%Y-%m-%d %H:%M:%S} UTC", data_ago=True)[words]


def distance_words(distance: timedelta) -> str:
    seconds = distance.total_seconds()
    size = _size(abs(seconds))
    if size == "now":
        return "just now"
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
