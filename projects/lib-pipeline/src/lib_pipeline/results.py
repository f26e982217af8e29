"""How the tasks of one call ended, and how that is told: a line while it happens, a table and a report at the end."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TextIO

from lib_pipeline.errors import NoRoom
from lib_pipeline.plan import Task
from lib_pipeline.targets import Target

REPORT_FORMAT = 1
SHOWN_LINES = 60


class Status(StrEnum):
    """What became of a task."""

    CACHED = "cached"
    RAN = "ran"
    FAILED = "failed"
    NOTHING = "nothing"


COLOURS = {Status.CACHED: "36", Status.RAN: "32", Status.FAILED: "31", Status.NOTHING: "2"}


@dataclass(frozen=True, kw_only=True)
class Result:
    """One task's status, the seconds it took or had taken when it was remembered, and what there is to say about it."""

    task: Task
    status: Status
    seconds: float = 0.0
    note: str = ""
    log: Path | None = None


@dataclass(frozen=True, kw_only=True)
class CacheState:
    """Which caches took part: `on`, `read`, `write`, `off`, `unreachable`; and why one did not."""

    local: str
    shared: str
    note: str = ""


@dataclass(kw_only=True)
class Screen:
    """Where a call tells people what happens: progress on standard error, the table on standard output."""

    out: TextIO = field(default_factory=lambda: sys.stdout)
    progress: TextIO = field(default_factory=lambda: sys.stderr)
    colour: bool = False

    def say(self, text: str) -> None:
        """One line of progress."""
        self.progress.write(f"{text}\n")
        self.progress.flush()

    def started(self, task: Task) -> None:
        """A task has begun to run."""
        self.say(f"  …       {task.member} {task.target}")

    def ended(self, result: Result) -> None:
        """A task has ended."""
        took = f"{result.seconds:6.1f} s" if result.status is not Status.CACHED else "        "
        note = f"  {result.note}" if result.note else ""
        self.say(f"  {self.painted(result.status)} {took}  {result.task.member} {result.task.target}{note}")

    def painted(self, status: Status) -> str:
        """A status, in its colour on a terminal."""
        text = f"{status:<7}"
        return f"\x1b[{COLOURS[status]}m{text}\x1b[0m" if self.colour else text

    def show_failures(self, results: Iterable[Result]) -> None:
        """The end of what each failed task wrote, where the reason is, and where the rest is."""
        for result in results:
            if result.status is not Status.FAILED:
                continue
            self.say(f"\n── {result.task.member} {result.task.target}: {result.note}")
            if result.log is not None:
                self.say(excerpt(result.log))
                self.say(f"   all of it: {result.log}")

    def show_table(
        self,
        results: Sequence[Result],
        targets: Sequence[Target],
        seconds: float,
        cache: CacheState,
        left_out: str = "",
    ) -> None:
        """A row for each member, a column for each target; below it the sums, and what was left out."""
        members = list(dict.fromkeys(result.task.member for result in results))
        found = {(result.task.member, result.task.target): result for result in results}
        width = max((len(member) for member in members), default=0)
        self.out.write("".join(("\n", " " * (width + 2), *(f"{target:<17}" for target in targets))).rstrip() + "\n")
        for member in members:
            cells = "".join(self._cell(found.get((member, target))) for target in targets)
            self.out.write(f"{member:<{width}}  {cells}".rstrip() + "\n")
        counts = count(results)
        sums = ", ".join(
            f"{counts[status]} {status}" for status in COLOURS if status in counts and status != Status.NOTHING
        )
        note = f" ({cache.note})" if cache.note else ""
        self.out.write(
            f"\n{sums or 'nothing to do'} in {seconds:.1f} s; cache {cache.local}, shared {cache.shared}{note}\n"
        )
        if left_out:
            self.out.write(f"{left_out}\n")
        self.out.flush()

    def _cell(self, result: Result | None) -> str:
        if result is None:
            return f"{'-':<17}"
        if result.status is Status.NOTHING:
            text = result.note.removesuffix(" among its tools")
            return f"\x1b[2m{text:<17}\x1b[0m" if self.colour else f"{text:<17}"
        took = f"{result.seconds:.1f} s" if result.status is not Status.CACHED else ""
        return f"{self.painted(result.status)} {took:<9}"


def screen_of_process() -> Screen:
    """The screen of this process; colours only for a terminal that wants them."""
    return Screen(colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ)


def excerpt(log: Path) -> str:
    """What a failed command said: from pytest's failures on, else the end; never more than a page."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        return f"   its output cannot be read: {error}"
    marks = [
        number
        for number, line in enumerate(lines)
        if line.startswith("=") and (" FAILURES " in line or " ERRORS " in line)
    ]
    chosen = lines[marks[0] :] if marks else lines
    if len(chosen) > SHOWN_LINES:
        head = chosen[: SHOWN_LINES // 2] if marks else chosen[:1]
        chosen = [*head, f"   [… {len(chosen) - SHOWN_LINES} lines …]", *chosen[len(head) - SHOWN_LINES :]]
    return "\n".join(f"   {line}" for line in chosen)


def count(results: Iterable[Result]) -> dict[Status, int]:
    """How many tasks have each status."""
    counts: dict[Status, int] = {}
    for result in results:
        counts[result.status] = counts.get(result.status, 0) + 1
    return counts


def exit_code(results: Iterable[Result]) -> int:
    """0: everything passed or had nothing to do; 1: something failed."""
    return int(any(result.status is Status.FAILED for result in results))


def report(results: Sequence[Result], cache: CacheState, *, seconds: float) -> dict[str, Any]:
    """The same for programs; the shape is described in the guide."""
    return {
        "format": REPORT_FORMAT,
        "exit_code": exit_code(results),
        "seconds": round(seconds, 3),
        "cache": {"local": cache.local, "shared": cache.shared, "note": cache.note},
        "counts": count(results),
        "tasks": [
            {
                "member": result.task.member,
                "target": result.task.target,
                "status": result.status,
                "seconds": round(result.seconds, 3),
                "key": result.task.key if result.status is not Status.NOTHING else None,
                "note": result.note,
                "log": str(result.log) if result.log is not None else None,
            }
            for result in results
        ],
    }


def write_report(path: Path, content: dict[str, Any]) -> None:
    """Write a report as JSON, whole or not at all; raises `NoRoom`."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise NoRoom(path, str(error)) from error
