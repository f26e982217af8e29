"""What the PostgreSQL driver raises, sorted by whose fault it is."""

import asyncpg
from sqlalchemy.exc import DBAPIError

from lib_events.database import CommitFailed, DatabaseUnavailable

# Whatever a connection of ours may raise while nobody's function runs on it.
DRIVER_ERRORS = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what it says of a connection that was cut in the middle of a message
)
# Where a transaction function runs, OSError is its own.
FUNCTION_ERRORS = (DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
# What PostgreSQL says where no statement is at fault: SQLSTATEs, or how they begin (its appendix A). With some the
# connection ends …
LOST = (
    "08",  # the line failed
    "57P",  # the server stops, crashed or is not there yet, our database is gone, or an operator ended us
    "25P03",  # we stood still in a transaction for longer than the role may …
    "25P04",  # … or were in one for longer
)
# … with others it stays, and nothing was done of what was asked.
UNABLE = (
    "53",  # its disk is full, or memory, or whatever else a limit is set to
    "58",  # its files fail …
    "XX001",  # … or are damaged …
    "XX002",  # … or an index is
    "57014",  # an operator cancelled it, or it took longer than the role may …
    "55P03",  # … or waited for a lock for longer
    "40001",  # others were faster …
    "40P01",  # … or each waited for the other
)
UNABLE_TO_SAVE = (*UNABLE, "25006")  # it only reads, as a standby does
RETRYABLE = ("40001", "40P01")  # PostgreSQL asks to be asked again
GIVEN_UP = (*RETRYABLE, "57014", "55P03")  # and what a hot statement was kept from, it soon does
LOST_CLASSES = (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError)


def is_lost(error: BaseException) -> bool:
    """Whether the connection failed, and not what was asked of it."""
    return isinstance(_cause(error), LOST_CLASSES) or _says(error, LOST)


def is_unable(error: BaseException) -> bool:
    """Whether the server could not answer, whatever it was asked."""
    return _says(error, UNABLE)


def is_unable_to_save(error: BaseException) -> bool:
    """Whether the server could not save, whatever that was."""
    return _says(error, UNABLE_TO_SAVE)


def may_be_retried(error: BaseException) -> bool:
    """Whether PostgreSQL asks to be asked again: a deadlock, or a serialization failure."""
    return _says(error, RETRYABLE)


def is_given_up(error: BaseException) -> bool:
    """Whether a hot statement, which asks for little, was kept from it by others for a moment."""
    return _says(error, GIVEN_UP)


def _says(error: BaseException, states: tuple[str, ...]) -> bool:
    state: str = getattr(_cause(error), "sqlstate", None) or ""
    return state.startswith(states)


def _cause(error: BaseException) -> BaseException:
    """The driver's error: it is behind SQLAlchemy's two, which tell statements and values to whoever reads them."""
    behind = getattr(error.__cause__, "__cause__", None) if isinstance(error, DBAPIError) else None
    return behind or error


def not_saved(error: BaseException) -> CommitFailed:
    """The error for a commit that the server could not make."""
    return CommitFailed(f"nothing was saved in PostgreSQL: {_cause(error)}; try again")


def connection_lost(error: BaseException) -> CommitFailed:
    """The error for a commit nobody has heard of any more."""
    return CommitFailed(f"the connection to PostgreSQL was lost: {_cause(error)}; it may or may not be saved")


def not_read(error: BaseException) -> DatabaseUnavailable:
    """The error for something that could not be read."""
    what = "the connection to PostgreSQL was lost" if is_lost(error) else "PostgreSQL cannot read"
    return DatabaseUnavailable(f"{what}: {_cause(error)}; try again")
