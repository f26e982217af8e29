"""Tasks by way of Turborepo: it looks each key up, performs what it does not know, and keeps what passed.

It is believed only so far as there is a receipt for the very key: a result that it restores without one, or with other
products than the receipt names, is thrown away and the task is performed.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from lib_pipeline.errands import Errands
from lib_pipeline.mirror import CALL, log_file, make_mirror, out_folder
from lib_pipeline.performing import WAITING, order_for, read_receipt
from lib_pipeline.plan import Task
from lib_pipeline.results import Result, Screen, Status
from lib_pipeline.rooms import Rooms
from lib_pipeline.shared_cache import SharedCache

HIT = "cache hit"
MISS = "cache miss"
BYPASS = "cache bypass"
SHOWN_WARNINGS = 3
ENDED = "command finished with error, but continuing..."  # we tell of failures ourselves


class TurboFailed(Exception):
    """Turborepo did not come to the tasks, or not to all: they are run without it."""


@dataclass(frozen=True, kw_only=True)
class TurboRun:
    """What one call of Turborepo needs."""

    program: Path
    mirror: Path
    results: Path
    rooms: Rooms
    shared: SharedCache | None
    jobs: int
    screen: Screen

    def run(self, tasks: Iterable[Task]) -> list[Result]:
        """Perform or look up every task; raises `TurboFailed`."""
        chosen = list(tasks)
        make_mirror(self.mirror, chosen)
        results = self._once(chosen, force=False)
        doubtful = [task for task in chosen if results.get(task.name) is None]
        if doubtful:
            for task in doubtful:
                self.screen.say(
                    f"  what the cache holds for {task.member} {task.target} is not whole: it is not believed"
                )
                shutil.rmtree(out_folder(self.mirror, task.member, task.target), ignore_errors=True)
            results |= self._once(doubtful, force=True)
        if missing := [task.name for task in chosen if results.get(task.name) is None]:
            raise TurboFailed(f"Turborepo left {', '.join(missing)} without a result")
        return [result for task in chosen if (result := results[task.name]) is not None]

    def _once(self, tasks: Sequence[Task], *, force: bool) -> dict[str, Result | None]:
        """One call of Turborepo; None for a task whose result from the cache is not believed."""
        listener = Listener(tasks={task.name: task for task in tasks}, mirror=self.mirror, screen=self.screen)
        errors = self.mirror / "turbo.errors"
        orders = {task.name: order_for(task) for task in tasks}
        with (
            errors.open("w", encoding="utf-8") as file,
            Errands(orders, self.rooms, self.mirror, at_once=self.jobs) as errands,
        ):
            code = self._listen(self._command(tasks, force=force), listener, file, errands.address)
        words = errors.read_text(encoding="utf-8", errors="replace")
        for warning in listener.warnings[:SHOWN_WARNINGS]:
            self.screen.say(f"  Turborepo: {_first_line(warning)}")
        if (more := len(listener.warnings) - SHOWN_WARNINGS) > 0:
            self.screen.say(f"  Turborepo: {more} more like these")
        if not listener.heard:
            raise TurboFailed(_first_line(words) or f"Turborepo exited with {code}")
        return {task.name: listener.result(task) for task in tasks}

    def _listen(self, command: Sequence[str], listener: "Listener", errors: TextIO, address: str) -> int:
        """Hear what Turborepo says until it ends; returns its exit code. Whoever interrupts us ends it, too."""
        with subprocess.Popen(
            command,
            cwd=self.mirror,
            env=self._environment(address),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as process:
            try:
                for line in process.stdout or ():
                    listener.hear(line)
            except BaseException:
                process.terminate()
                raise
        return process.returncode

    def _command(self, tasks: Sequence[Task], *, force: bool) -> list[str]:
        names = [task.name for task in tasks]
        options = [
            "--json",
            "--skip-infer",
            "--continue=always",
            "--output-logs=full",
            f"--concurrency={self.jobs + WAITING}",
        ]
        return [str(self.program), "run", *names, *options, f"--cache={self._caches(force=force)}"]

    def _caches(self, *, force: bool) -> str:
        local = "local:w" if force else "local:rw"
        if self.shared is None:
            return f"{local},remote:"
        read, write = "" if force else "r", "w" if self.shared.writes else ""
        return f"{local},remote:{read}{write}"

    def _environment(self, address: str) -> dict[str, str]:
        """What Turborepo sees: the tasks' environment and the shared cache, and none of somebody's TURBO settings."""
        path = os.pathsep.join(
            (str(Path(sys.executable).parent), str(self.rooms.uv.parent), self.rooms.variables.get("PATH", ""))
        )
        return {
            **self.rooms.variables,
            **(self.shared.environment() if self.shared else {}),
            "PATH": path,
            CALL: address,
            "TURBO_CACHE_DIR": str(self.results),
            "TURBO_TELEMETRY_DISABLED": "1",
            "DO_NOT_TRACK": "1",
        }


@dataclass(kw_only=True)
class Listener:
    """Reads Turborepo's lines: which task begins, which came from the cache, what the messengers say last."""

    tasks: Mapping[str, Task]
    mirror: Path
    screen: Screen
    hits: set[str] = field(default_factory=set)
    started: set[str] = field(default_factory=set)
    said: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def heard(self) -> bool:
        """Whether Turborepo came to any task."""
        return bool(self.hits or self.started)

    def hear(self, line: str) -> None:
        """Take in one line."""
        entry = _parsed(line)
        task, text = self.tasks.get(str(entry.get("source"))), str(entry.get("text", ""))
        if task is None:
            if entry.get("level") in ("warn", "error") and not text.endswith(ENDED) and " exited (" not in text:
                self.warnings.append(text)
            return
        if text.startswith(HIT):
            self.hits.add(task.name)
        elif text.startswith((MISS, BYPASS)):
            self.started.add(task.name)
            self.screen.started(task)
        elif (said := _parsed(text)).keys() >= {"outcome", "seconds", "note"}:
            self.said[task.name] = said
            if task.name in self.started:
                self._ended(task)

    def result(self, task: Task) -> Result | None:
        """How a task ended; None if its result came from the cache and is not believed."""
        log = log_file(self.mirror, task.member, task.target)
        receipt = read_receipt(
            out_folder(self.mirror, task.member, task.target), member=task.member, target=task.target, key=task.key
        )
        if task.name in self.hits:
            if receipt is None:
                return None
            return Result(task=task, status=Status.CACHED, seconds=receipt.seconds, note=receipt.note)
        said = self.said.get(task.name)
        if said is None:
            return Result(task=task, status=Status.FAILED, note="its process ended without a word", log=log)
        passed = said["outcome"] == "changed" or (said["outcome"] == "passed" and receipt is not None)
        status = Status.RAN if passed else Status.FAILED
        return Result(task=task, status=status, seconds=float(said["seconds"]), note=str(said["note"]), log=log)

    def _ended(self, task: Task) -> None:
        if result := self.result(task):
            self.screen.ended(result)


def _parsed(line: str) -> Mapping[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _first_line(words: str) -> str:
    return next(_lines(words), "")


def _lines(words: str) -> Iterator[str]:
    return (line.strip(" x|") for line in words.splitlines() if line.strip(" x|"))
