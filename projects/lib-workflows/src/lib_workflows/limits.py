"""How much of a machine an engine may take."""

import os
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a process keeps in memory, and for how long."""

    idle_seconds: float = 60.0
    in_memory: int = 50_000
    step_threads: int = 32
    blocked_seconds: float = 1.0  # a loop that is blocked for so long is told of in the log
    step_processes: int = field(default_factory=lambda: os.cpu_count() or 1)
