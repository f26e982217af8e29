"""The one source of time: a clock that tests can replace."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

MICROSECOND = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """Tells the time in UTC."""

    def micros(self) -> int:
        """Microseconds since 1970-01-01T00:00:00Z."""
        ...


class SystemClock:
    """The machine's clock."""

    def micros(self) -> int:
        """Microseconds since 1970-01-01T00:00:00Z."""
        return time.time_ns() // 1000


def to_datetime(micros: int) -> datetime:
    """Return the aware UTC time `micros` microseconds after the epoch."""
    return EPOCH + micros * MICROSECOND


def to_micros(moment: datetime) -> int:
    """Return the microseconds from the epoch to an aware `moment`."""
    return (moment - EPOCH) // MICROSECOND
