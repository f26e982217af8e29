"""Ids that are unique everywhere and sort by time, so that indexes grow at their end."""

import hashlib
import itertools
import os
import re
import uuid

from lib_events.chance import current_seed
from lib_workflows.errors import DefinitionError

# Of the ids of runs that other runs and events start: they follow from those, and are for nobody to choose. Whoever
# took one before would keep that run from beginning, or see what it gives.
STARTED_PREFIX = "started~"
SCHEDULED_PREFIX = "schedule~"  # of the ids of runs that schedules start
GIVEN_PREFIXES = (SCHEDULED_PREFIX, STARTED_PREFIX)
# What stands in a path of the REST interface as it is.
PLAIN_ID = re.compile(r"(?!\.\.?$)[A-Za-z0-9._~-]{1,128}")

_process = os.urandom(5).hex()
_numbers = itertools.count()


def check_chosen_id(run_id: str | None) -> None:
    """Refuse an id that is for no caller to choose; raises `DefinitionError`."""
    given = next((prefix for prefix in GIVEN_PREFIXES if run_id is not None and run_id.startswith(prefix)), None)
    if given is not None:
        raise DefinitionError(
            f"id of a run must not begin with {given}, got {run_id!r:.100}: such runs are started by schedules, runs "
            "and events; choose another"
        )


def check_plain_id(run_id: str) -> str:
    """Return the id that a run chooses for one that it starts: people look for that by it; raises `DefinitionError`."""
    if not isinstance(run_id, str) or not PLAIN_ID.fullmatch(run_id):
        raise DefinitionError(
            "id of a run must be 1 to 128 letters, digits and . _ ~ -, and neither . nor .., so that it stands in a "
            f"path as it is, got {run_id!r:.200}"
        )
    check_chosen_id(run_id)
    return run_id


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
