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
)


def is_lost(error: BaseException) -> bool:
    """Whether the connection failed, and not what was asked of it."""
    # The driver's error is behind SQLAlchemy's two.
    cause = getattr(error.__cause__, "__cause__", None) if isinstance(error, DBAPIError) else error
    return isinstance(cause, LOST)


def connection_lost(error: BaseException) -> CommitFailed:
    """The error for a commit nobody has heard of any more."""
    return CommitFailed(f"the connection to PostgreSQL was lost: {error}; it may or may not be saved")


def not_read(error: BaseException) -> DatabaseUnavailable:
    """The error for something that could not be read."""
    return DatabaseUnavailable(f"the connection to PostgreSQL was lost: {error}; try again")


def may_be_retried(error: BaseException) -> bool:
    """Whether PostgreSQL asks to be asked again: a deadlock, or a serialization failure."""
    cause = getattr(error, "orig", None) or error
    return getattr(cause, "sqlstate", None) in RETRYABLE
