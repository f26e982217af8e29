"""Secrets in files: written atomically as 0600, refused when others could read them."""

import os
from collections.abc import Callable
from pathlib import Path

from lib_events.durable_files import sync_names, write_beside, write_whole


class SecretFileExposed(Exception):
    """A secret file must be readable by its owner only."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} must be readable by its owner only, got {reason}; make a new secret or chmod 600 it")
        self.path = path


def write_secret(path: Path, secret: str) -> None:
    """Replace the file at `path`; a crash leaves the old secret or the new one, never half of it."""
    write_whole(path, secret)


def create_secret(path: Path, make: Callable[[], str]) -> str:
    """Return the secret at `path`, making it first if there is none; of several makers one wins.

    It is on disk then, whoever made it: what is sealed with it must not outlive it.
    """
    if not path.exists():
        temporary = write_beside(path, make())
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            pass  # another process was first: its secret is the secret
        finally:
            temporary.unlink()
    sync_names(path.parent)
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
