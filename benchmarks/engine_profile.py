"""Where the engine's time goes: a sample of the loop's thread at every millisecond of CPU, by module.

    uv run python benchmarks/engine_profile.py [--database sqlite|postgresql] [--only W1|W2|W3|W4] [--seconds 10]

A sample counts for the innermost module of ours on the stack; what runs within a library or in C (a codec, a statement)
counts for the module that called it. Samples cost little, so unlike with cProfile small functions do not look large.
"""

import argparse
import asyncio
import gc
import signal
import tempfile
import time
from collections import Counter
from types import FrameType
from typing import Self

import engine as speed

from lib_events import memory
from lib_events.http.server import new_event_loop
from lib_workflows import Engine

EVERY_SECONDS = 0.001
OURS = ("lib_workflows", "lib_events")
SHOWN = 20


class Sampler:
    """Counts modules while it is on."""

    def __init__(self) -> None:
        self.modules: Counter[str] = Counter()
        self.collecting = 0.0
        self._began = 0.0

    def __enter__(self) -> Self:
        gc.callbacks.append(self._collects)
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, EVERY_SECONDS, EVERY_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        gc.callbacks.remove(self._collects)

    def _sample(self, _number: int, frame: FrameType | None) -> None:
        while frame is not None:
            module = frame.f_globals.get("__name__", "")
            if module.startswith(OURS):
                self.modules[module] += 1
                return
            frame = frame.f_back
        self.modules["event loop and benchmark"] += 1

    def _collects(self, phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.thread_time()
        else:
            self.collecting += time.thread_time() - self._began


async def profile(url: str, name: str, seconds: float) -> None:
    async with Engine.open(url, speed.WORKFLOWS) as engine:
        await speed.closed_loop(engine, speed.one_step, 0.5)  # warm up
        memory.settle()
        cpu, wall = time.process_time(), time.perf_counter()
        with Sampler() as sampler:
            figure = await speed.WORKLOADS[name](engine, seconds)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    total = sampler.modules.total()
    print(f"{name} {figure.strip()}; the process is busy {cpu / wall:.0%} of the time")
    print(f"the garbage collector takes {sampler.collecting / cpu:.1%} of the CPU, within what follows\n")
    print("| module | of the samples |\n|---|---|")
    for module, count in sampler.modules.most_common(SHOWN):
        print(f"| `{module}` | {count / total:.1%} |")


def main() -> None:
    parser = argparse.ArgumentParser(description="Where the engine's time goes.")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--only", choices=list(speed.WORKLOADS), default="W1")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="evs-benchmark-") as folder:
        url = f"sqlite:///{folder}/benchmark.db" if options.database == "sqlite" else speed.postgresql_url()
        asyncio.run(profile(url, options.only, options.seconds), loop_factory=new_event_loop)


if __name__ == "__main__":
    main()
