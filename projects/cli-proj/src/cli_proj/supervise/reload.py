"""Restarts the AppService when a file of the user's workflows changes."""

import asyncio
import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from cli_proj.supervise.plan import APP
from cli_proj.supervise.supervisor import Supervisor
from lib_events.lifecycle import Loop

LOOK_SECONDS = 0.5
ENTRY_POINTS = "evs.workflows"

type Snapshot = dict[Path, int]


class Reload(Loop):
    """Compares modification times; a service is restarted once its files have come to rest."""

    def __init__(self, supervisor: Supervisor, *, say: Callable[[str], None]) -> None:
        super().__init__(name="reload")
        self._supervisor = supervisor
        self._say = say

    async def run(self) -> None:
        """Look again and again."""
        roots = watched(self._supervisor.plan.settings.workflows)
        seen = snapshot(roots)
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = snapshot(roots)
            if now != seen:
                changed = sorted(path.name for path, _ in now.items() ^ seen.items())
                self._say(f"{', '.join(dict.fromkeys(changed))} changed: restarting {APP}")
                await self._supervisor.child(APP).restart()
                seen = now


def watched(workflows: Iterable[str]) -> list[Path]:
    """The files and folders that hold the user's workflows."""
    names = [*workflows, *(point.module for point in importlib.metadata.entry_points(group=ENTRY_POINTS))]
    return [root for name in names if (root := _place_of(name)) is not None]


def snapshot(roots: Iterable[Path]) -> Snapshot:
    """When each Python file under `roots` was last changed."""
    seen: Snapshot = {}
    for root in roots:
        for path in [root] if root.is_file() else root.rglob("*.py"):
            with suppress(FileNotFoundError):  # an editor may be replacing it right now
                seen[path] = path.stat().st_mtime_ns
    return seen


def _place_of(name: str) -> Path | None:
    """A file itself, or the folder of a package, or the file of a module."""
    if name.endswith(".py"):
        return Path(name).absolute()
    with suppress(ImportError, ValueError):
        specification = importlib.util.find_spec(name)
        if specification is not None and specification.origin is not None:
            origin = Path(specification.origin)
            return origin.parent if origin.name == "__init__.py" else origin
    return None
