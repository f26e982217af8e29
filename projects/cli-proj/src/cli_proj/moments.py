"""Times as people read them in a terminal."""

from datetime import UTC, datetime

MINUTE, HOUR, DAY = 60, 3600, 86_400


def parse(text: str | None) -> datetime | None:
    """Read an RFC 3339 time."""
    return datetime.fromisoformat(text) if text else None


def age(text: str | None, *, now: datetime | None = None) -> str:
    """How long ago `text` was: `42s`, `5m`, `3h`, `2d`."""
    moment = parse(text)
    return brief(((now or datetime.now(UTC)) - moment).total_seconds()) if moment else ""


def clock(text: str | None) -> str:
    """The local time of day, to the millisecond."""
    moment = parse(text)
    return moment.astimezone().strftime("%H:%M:%S.%f")[:-3] if moment else ""


def between(start: str | None, end: str | None, *, now: datetime | None = None) -> str:
    """How long it took, or has taken so far."""
    began = parse(start)
    if began is None:
        return ""
    return precise(((parse(end) or now or datetime.now(UTC)) - began).total_seconds())


def brief(seconds: float) -> str:
    """A duration in one unit."""
    seconds = max(seconds, 0)
    for unit, length in (("d", DAY), ("h", HOUR), ("m", MINUTE)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f}{unit}"
    return f"{seconds:.0f}s"


def precise(seconds: float) -> str:
    """A duration with about three digits."""
    seconds = max(seconds, 0)
    if round(seconds, 3) < 1:
        return f"{seconds * 1000:.0f} ms"
    if round(seconds, 1) < MINUTE:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), MINUTE)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
