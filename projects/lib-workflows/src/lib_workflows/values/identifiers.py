"""Ids that are unique everywhere and sort by time, so that indexes grow at their end."""

import hashlib
import itertools
import os
import uuid

from lib_events.chance import current_seed

# Of the ids of runs that other runs and events start: they follow from those, and are for nobody to choose. Whoever
# took one before would keep that run from beginning, or see what it gives.
STARTED_PREFIX = "started~"

_process = os.urandom(5).hex()
_numbers = itertools.count()


def time_ordered_id(micros: int) -> str:
    """A new id of that time: 32 hexadecimal digits, half time, half chance. Nobody can guess it."""
    seed = current_seed.get()
    if seed is not None:
        return seed.draw("id").hex()
    return f"{micros:016x}{os.urandom(8).hex()}"


def run_id_after(*facts: str) -> str:
    """The id of the one run that there is because of these facts."""
    return STARTED_PREFIX + hashlib.blake2b("\0".join(facts).encode(), digest_size=16).hexdigest()


def event_id(micros: int, subject: str) -> str:
    """A new id for one of many events: time, this process, and a number; unique, and cheaper than chance."""
    seed = current_seed.get()
    if seed is not None:
        return seed.draw(f"event {subject}").hex()
    return f"{micros:016x}{_process}{next(_numbers) & 0xFFFFFF:06x}"


def update_id() -> str:
    """A new id for an update."""
    seed = current_seed.get()
    return uuid.uuid4().hex if seed is None else seed.draw("update").hex()


def _begin_process() -> None:
    global _process  # noqa: PLW0603 - a fork must not go on with its parent's ids
    _process = os.urandom(5).hex()


os.register_at_fork(after_in_child=_begin_process)
