"""How long a run that could not be saved stays away before it is loaded again: longer each time it soon fails anew.

What it does at once when it is back, it may have done before: while a disk is full, each try repeats a step.
"""

import asyncio

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 20.0
WELL_SECONDS = 60.0  # a run that has gone on for so long has nothing to do with what there was before


class Reloads:
    """Remembers the runs that failed lately."""

    def __init__(self) -> None:
        self._away: dict[str, tuple[float, float]] = {}  # by run, the last one last: for how long, and until when

    def pause_seconds(self, run_id: str) -> float:
        """How long a run that has just failed stays away."""
        now = asyncio.get_running_loop().time()
        self._forget(now - WELL_SECONDS)
        before, until = self._away.pop(run_id, (0.0, now))
        is_well = until < now - WELL_SECONDS
        pause = FIRST_SECONDS if is_well or not before else min(2 * before, LONGEST_SECONDS)
        self._away[run_id] = pause, now + pause
        return pause

    def _forget(self, moment: float) -> None:
        """Those who were away until before that, as far as they come first: nobody else is to be looked at."""
        while self._away:
            run_id, (_, until) = next(iter(self._away.items()))
            if until >= moment:
                break
            del self._away[run_id]
