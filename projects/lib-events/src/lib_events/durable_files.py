"""Files that a power cut leaves whole: their content is on disk, and so is every name that leads to it.

Whoever finds a file may have been preceded by somebody who died before its name was on disk: so whoever relies on a
file puts its name there, made by this process or not.
"""

import contextlib
import os
import tempfile
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Replace the file at `path`, which its owner alone may read; a crash leaves the one of before or this one."""
    write_beside(path, text).replace(path)
    sync_names(path.parent)


def write_beside(path: Path, text: str) -> Path:
    """Write what is to become the file at `path`, and its folder; returns where it is, its name not yet on disk."""
    make_folder(path.parent)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp makes it 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        Path(name).unlink()  # half a file is nobody's
        raise
    return Path(name)


def make_folder(folder: Path) -> None:
    """Make a private folder, with those it is in where they are missing, and put its name on disk."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(PermissionError):  # of a folder that is not ours to read, and that was there before
        sync_names(folder.parent)


def sync_names(folder: Path) -> None:
    """Put on disk which files are in a folder."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
