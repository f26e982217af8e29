"""Times as people read them in a terminal."""

from datetime import UTC, datetime, timedelta

from cli_proj.failure import usage

MINUTE, HOUR, DAY = 60, 3600, 86_400
UNITS = {"s": 1, "m": MINUTE, "h": HOUR, "d": DAY}


def parse(text: str | None) -> datetime | None:
    """Read an RFC 3339 time."""
    return datetime.fromisoformat(text) if text else None


def read(text: str | None, *, option: str) -> str | None:
    """Read what a person gives for a time: `30m` ago, or an RFC 3339 time."""
    if text is None:
        return None
    try:
        if is_duration(text):
            return (datetime.now(UTC) - timedelta(seconds=read_duration(text, option=option))).isoformat()
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.astimezone()).isoformat()
    except (ValueError, OverflowError):
        raise usage(f"{option} must be 30m, 2h, 1d or a time such as 2026-01-31T12:00:00Z, got {text!r}") from None


def is_duration(text: str) -> bool:
    """Whether it is written as a duration."""
    return text[-1:] in UNITS and text[:-1].isdecimal()


def read_duration(text: str, *, option: str) -> int:
    """Read what a person gives for a duration: `90s`, `30m`, `2h`, `1d`; in seconds."""
    if not is_duration(text):
        raise usage(f"{option} must be 90s, 30m, 2h or 1d, got {text!r}")
    return int(text[:-1]) * UNITS[text[-1]]


def ahead(text: str | None, *, now: datetime | None = None) -> str:
    """How long it is until `text`: `in 5m`."""
    moment = parse(text)
    return f"in {brief((moment - (now or datetime.now(UTC))).total_seconds())}" if moment else ""


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


def written(seconds: float) -> str:
    """A duration exactly, as `read_duration` reads it where it has whole seconds: 300 is `5m`."""
    for unit, length in (("d", DAY), ("h", HOUR), ("m", MINUTE)):
        if seconds and seconds % length == 0:
            return f"{seconds // length:.0f}{unit}"
    return f"{seconds:g}s"


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
