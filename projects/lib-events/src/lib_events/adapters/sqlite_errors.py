"""What SQLite raises, as the errors of the port: what is wrong with which file, and what to do about it."""

import os
import sqlite3
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from lib_events.database import CommitFailed, DatabaseInUse, DatabaseReadOnly, DatabaseUnavailable

LOCKED = "end what has it open (a backup, a sqlite3 shell)"
DAMAGED = "the file is damaged: stop, and restore a backup or salvage what is in it with sqlite3's .recover"
ADVICE = {
    "SQLITE_FULL": "free space",
    "SQLITE_IOERR": "repair the disk",
    "SQLITE_READONLY": "let it be written",
    "SQLITE_CANTOPEN": "let it be opened",
    "SQLITE_CORRUPT": DAMAGED,
    "SQLITE_NOTADB": DAMAGED,
    "SQLITE_BUSY": LOCKED,
    "SQLITE_LOCKED": LOCKED,
}


def sqlite_error(error: BaseException) -> sqlite3.Error | None:
    """The driver's error in `error`, if there is one."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return cause if isinstance(cause, sqlite3.Error) else None


def name_of(error: sqlite3.Error) -> str:
    """SQLite's own name of an error."""
    return getattr(error, "sqlite_errorname", "")


def is_locked(error: sqlite3.Error) -> bool:
    """Whether another program holds the file."""
    return name_of(error).startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def is_of_the_file(error: sqlite3.Error) -> bool:
    """Whether the file or its disk is at fault, and not the statement."""
    return name_of(error).startswith(tuple(ADVICE))


def _advice(error: sqlite3.Error) -> str:
    return next((advice for kind, advice in ADVICE.items() if name_of(error).startswith(kind)), "repair the disk")


def not_saved(error: sqlite3.Error, path: Path) -> CommitFailed:
    """The error for a commit that did not come about; its text is for clients, its note for who reads the log."""
    failed = CommitFailed(f"nothing was saved in the database: {error}; {_advice(error)}, then try again")
    failed.add_note(f"the database is {path}")
    return failed


def not_read(error: sqlite3.Error, path: Path) -> DatabaseUnavailable:
    """The error for something that could not be read; text and note as for `not_saved`."""
    failed = DatabaseUnavailable(f"the database cannot be read: {error}; {_advice(error)}, then try again")
    failed.add_note(f"the database is {path}")
    return failed


def not_opened(error: sqlite3.Error, path: Path) -> DatabaseInUse | DatabaseReadOnly | DatabaseUnavailable:
    """The error for a file that could not be opened."""
    text = str(error)
    if is_locked(error):
        return DatabaseInUse(f"{path} must not be locked by another program; {LOCKED}, then start again")
    if "readonly" in text or not os.access(path if path.exists() else path.parent, os.W_OK):
        return DatabaseReadOnly(f"{path} must be writable; choose another folder with EVS_DATA")
    return DatabaseUnavailable(
        f"{path} cannot be opened as a SQLite database: {text}; restore a backup or move it away"
    )
