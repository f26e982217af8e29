"""Secrets in files: written atomically as 0600, refused when others could read them."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


class SecretFileExposed(Exception):
    """A secret file must be readable by its owner only."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} must be readable by its owner only, got {reason}; make a new secret or chmod 600 it")
        self.path = path


def write_secret(path: Path, secret: str) -> None:
    """Replace the file at `path`; a crash leaves the old secret or the new one, never half of it."""
    temporary = _write_beside(path, secret)
    temporary.replace(path)
    _sync_folder(path.parent)


def create_secret(path: Path, make: Callable[[], str]) -> str:
    """Return the secret at `path`, making it first if there is none; of several makers one wins."""
    if not path.exists():
        temporary = _write_beside(path, make())
        try:
            path.hardlink_to(temporary)
            _sync_folder(path.parent)
        except FileExistsError:
            pass  # another process was first: its secret is the secret
        finally:
            temporary.unlink()
    return read_secret(path)


def read_secret(path: Path) -> str:
    """Return the secret; raises `SecretFileExposed`, or FileNotFoundError."""
    with path.open(encoding="utf-8") as file:
        if os.name == "posix":
            status = os.fstat(file.fileno())
            if status.st_mode & 0o077:
                raise SecretFileExposed(path, f"mode {status.st_mode & 0o777:o}")
            if status.st_uid != os.getuid():
                raise SecretFileExposed(path, f"a file of user {status.st_uid}")
        return file.read().strip()


def _write_beside(path: Path, secret: str) -> Path:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp makes it 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(secret)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        Path(name).unlink()  # half a secret is nobody's
        raise
    return Path(name)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
