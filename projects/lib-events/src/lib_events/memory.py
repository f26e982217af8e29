"""How the garbage collector treats a service: what was loaded at the start stays, and bursts are no reason to look."""

import gc

YOUNG_OBJECTS = 50_000  # made since the last look; two thousand runs under way are twice as many, and live on
LOOKS_PER_OLDER = 20


def load() -> None:
    """Call before anything else is loaded: what comes now stays, and looking at it again and again takes time."""
    gc.disable()


def settle() -> None:
    """Call once everything is loaded: never look at that again, and less often at what comes and goes."""
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(YOUNG_OBJECTS, LOOKS_PER_OLDER, LOOKS_PER_OLDER)
