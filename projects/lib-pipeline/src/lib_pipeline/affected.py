"""Which tasks a change can reach: those whose key covers a file that differs from a commit."""

import subprocess
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from lib_pipeline.errors import NoBase
from lib_pipeline.plan import Task

BRANCHES = ("origin/HEAD", "origin/main", "origin/master", "main", "master")


def changed_files(root: Path, since: str | None) -> frozenset[str]:
    """The files below the root that differ from where this branch began (or from `since`); raises `NoBase`."""
    base = _base(root, since)
    changed = _git(root, "diff", "--name-only", "-z", "--relative", base).split("\0")
    new = _git(root, "ls-files", "-z", "--others", "--exclude-standard").split("\0")
    return frozenset(path for path in (*changed, *new) if path)


def affected(tasks: Iterable[Task], changed: frozenset[str], root: Path) -> list[Task]:
    """The tasks a change can reach. A file that is gone reaches whoever reads its neighbours; the lock, everybody."""
    gone = frozenset(path for path in changed if not (root / path).exists())
    everybody = "uv.lock" in changed or any("/" not in path for path in gone)
    return [task for task in tasks if task.commands and (everybody or _reached(task, changed, gone))]


def _reached(task: Task, changed: frozenset[str], gone: frozenset[str]) -> bool:
    if not changed.isdisjoint(task.files):
        return True
    folders = {PurePosixPath(path).parent for path in task.files}
    return any(parent in folders for path in gone for parent in PurePosixPath(path).parents if parent.parts)


def _base(root: Path, since: str | None) -> str:
    names = (since,) if since else BRANCHES
    for name in names:
        found = _git(root, "merge-base", "HEAD", name, wanted=False).strip()
        if found:
            return found
    raise NoBase(f"no commit {' or '.join(names)}")


def _git(root: Path, *arguments: str, wanted: bool = True) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except OSError as error:
        raise NoBase(str(error)) from error
    if done.returncode != 0 and wanted:
        raise NoBase(done.stderr.strip())
    return done.stdout if done.returncode == 0 else ""
