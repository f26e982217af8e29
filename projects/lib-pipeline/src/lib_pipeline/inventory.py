"""Which files a workspace consists of, and what is in them: the ground of every key."""

import hashlib
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# What tools leave behind, where no git says so.
LEFT_BEHIND = frozenset((
    *(".git", ".hg", ".venv", "venv", "__pycache__", "node_modules", "dist", "build", "site", ".evs"),
    *(".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", ".import_linter_cache", ".turbo", ".tox", ".nox"),
))  # fmt: skip
READERS = 4


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """Digests of a workspace's files by their path below the root, with `/` on every system."""

    root: Path
    digests: Mapping[str, str]

    def below(self, folder: PurePosixPath) -> Iterator[str]:
        """The paths in a folder."""
        prefix = "" if folder == PurePosixPath() else f"{folder}/"
        return (path for path in self.digests if path.startswith(prefix))


def take_inventory(root: Path, *, certain: Iterable[str] = ()) -> Inventory:
    """Digest every file that git does not ignore; without git, every file that no tool has left behind.

    `certain` names files that must be among them. A git that ignores them ignores the workspace, and is not asked.
    """
    names = sorted(_names(root, certain))
    with ThreadPoolExecutor(READERS) as pool:
        digests = pool.map(lambda name: digest_of(root / name), names, chunksize=64)
        return Inventory(
            root=root, digests={name: digest for name, digest in zip(names, digests, strict=True) if digest}
        )


def still_holds(root: Path, digests: Mapping[str, str]) -> bool:
    """Whether files are still what they were."""
    return all(digest_of(root / name) == digest for name, digest in digests.items())


def digest_of(path: Path) -> str | None:
    """SHA-256 of a file's content, and whether it can be run, and where it leads if it is a link. None: it is gone."""
    try:
        link = str(path.readlink()) if path.is_symlink() else ""
        if path.is_dir():
            return f"folder:{link}"
        content = path.read_bytes()
    except OSError:
        return f"broken:{link}" if path.is_symlink() else None
    kind = ("x" if os.access(path, os.X_OK) else "-") + (f"->{link}" if link else "")
    return f"{hashlib.sha256(content).hexdigest()}{kind}"


def _names(root: Path, certain: Iterable[str]) -> set[str]:
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=False,
    )
    names = {os.fsdecode(name) for name in listed.stdout.split(b"\0") if name} if listed.returncode == 0 else set()
    if not names or not names.issuperset(certain):
        return set(_walk(root, root))
    folders = {name for name in names if (root / name).is_dir() and not (root / name).is_symlink()}
    return names - folders | {below for folder in folders for below in _walk(root, root / folder)}


def _walk(root: Path, start: Path) -> Iterator[str]:
    for folder, folders, files in start.walk():
        folders[:] = [name for name in folders if name not in LEFT_BEHIND and not name.endswith(".egg-info")]
        yield from (
            (folder / name).relative_to(root).as_posix() for name in files if not name.endswith((".pyc", ".pyo"))
        )
