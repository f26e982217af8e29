"""Ids that are unique everywhere and sort by time, so that indexes grow at their end."""

from os import urandom


def time_ordered_id(micros: int) -> str:
    """A new id of that time: 32 hexadecimal digits, half time, half chance."""
    return f"{micros:016x}{urandom(8).hex()}"
