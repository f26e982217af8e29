"""How much of a machine an engine may take."""

import os
from dataclasses import dataclass, field

from lib_workflows.errors import DefinitionError
from lib_workflows.values.durations import check_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of a machine one engine takes: `Engine.open(…, limits=Limits(step_threads=100))`.

    A run that has only waited for `idle_seconds` leaves memory, and so does one that sleeps for longer; at most
    `in_memory` are there at once. So many `def` steps run side by side, in threads and, with `process=True`, in
    processes. A loop that is blocked for longer than `blocked_seconds` is told of in the log, with the line.
    """

    idle_seconds: float = 60.0
    in_memory: int = 50_000
    step_threads: int = 32
    blocked_seconds: float = 1.0  # a loop that is blocked for so long is told of in the log
    step_processes: int = field(default_factory=lambda: os.cpu_count() or 1)

    def __post_init__(self) -> None:
        check_seconds(self.idle_seconds, "idle_seconds")
        check_seconds(self.blocked_seconds, "blocked_seconds")
        for name in ("in_memory", "step_threads", "step_processes"):
            if not getattr(self, name) >= 1:
                raise DefinitionError(f"{name} must be 1 or more, got {getattr(self, name)!r}")
