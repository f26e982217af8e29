"""Times in tokens (RFC 7519 section 2, NumericDate): numbers that stand for a moment, and no others."""

from typing import Any, Final

END: Final = 253_402_300_800  # of the year 9999: later ones are no dates anywhere


def read_numeric_date(value: Any) -> float | None:
    """Return the seconds since the epoch; None for what stands for no moment.

    JSON has integers without end, which are no floats, and its readers know NaN, which is neither earlier nor later
    than anything: a check for too old and a check for too new would both let it pass.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not -END < value < END:
        return None
    return float(value)
