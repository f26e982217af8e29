"""How the garbage collector treats a service: what was loaded at the start stays, and bursts are no reason to look."""

import gc

YOUNG_OBJECTS = 10_000  # made since the last look; a group commit alone makes more than Python's 2,000
LOOKS_PER_OLDER = 20


def settle() -> None:
    """Call once everything is loaded: never look at that again, and less often at what comes and goes."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, LOOKS_PER_OLDER, LOOKS_PER_OLDER)
