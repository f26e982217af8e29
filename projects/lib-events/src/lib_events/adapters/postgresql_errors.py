"""What the PostgreSQL driver raises, sorted by whose fault it is."""

import asyncpg
from sqlalchemy.exc import DBAPIError

from lib_events.database import CommitFailed, DatabaseUnavailable

RETRYABLE = ("40001", "40P01")
# Whatever a connection of ours may raise while nobody's function runs on it.
DRIVER_ERRORS = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what it says of a connection that was cut in the middle of a message
)
# Where a transaction function runs, OSError is its own.
FUNCTION_ERRORS = (DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
# No statement is at fault: the server went away, or sent us away.
LOST = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleInTransactionSessionTimeoutError,  # we stood still
)
# Nor here: its disk is full or fails. And a server that only reads, as a standby does, can save nothing.
UNABLE = (asyncpg.DiskFullError, asyncpg.PostgresSystemError)
UNABLE_TO_SAVE = (*UNABLE, asyncpg.ReadOnlySQLTransactionError)


def is_lost(error: BaseException) -> bool:
    """Whether the connection failed, and not what was asked of it."""
    return isinstance(_cause(error), LOST)


def is_unable(error: BaseException) -> bool:
    """Whether the server could not answer, whatever it was asked."""
    return isinstance(_cause(error), UNABLE)


def is_unable_to_save(error: BaseException) -> bool:
    """Whether the server could not save, whatever that was."""
    return isinstance(_cause(error), UNABLE_TO_SAVE)


def _cause(error: BaseException) -> BaseException | None:
    """The driver's error: it is behind SQLAlchemy's two."""
    return getattr(error.__cause__, "__cause__", None) if isinstance(error, DBAPIError) else error


def not_saved(error: BaseException) -> CommitFailed:
    """The error for a commit that the server could not make."""
    return CommitFailed(f"nothing was saved in PostgreSQL: {error}; try again")


def connection_lost(error: BaseException) -> CommitFailed:
    """The error for a commit nobody has heard of any more."""
    return CommitFailed(f"the connection to PostgreSQL was lost: {error}; it may or may not be saved")


def not_read(error: BaseException) -> DatabaseUnavailable:
    """The error for something that could not be read."""
    what = "the connection to PostgreSQL was lost" if is_lost(error) else "PostgreSQL cannot read"
    return DatabaseUnavailable(f"{what}: {error}; try again")


def may_be_retried(error: BaseException) -> bool:
    """Whether PostgreSQL asks to be asked again: a deadlock, or a serialization failure."""
    cause = getattr(error, "orig", None) or error
    return getattr(cause, "sqlstate", None) in RETRYABLE
