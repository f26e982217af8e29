"""What became of something that was done outside: kept however long the database is away, or it would be done again."""

import asyncio
import logging
import traceback
from collections.abc import Callable

from lib_events.database import Connection, Database, DatabaseError, is_database_failure

logger = logging.getLogger(__name__)

AWAY_SECONDS = 1.0  # between two attempts to keep what became of something


async def keep[*A](database: Database, what: str, act: Callable[[Connection, *A], None], *args: *A) -> None:
    """Let `act` keep what became of `what`, as soon as there is a database to keep it; whoever stops us cancels it."""
    while True:
        try:
            return await database.transact(act, *args)
        except DatabaseError as error:
            if not is_database_failure(error):
                raise
            logger.warning("what became of %s cannot be kept yet: %s", what, error)
        await asyncio.sleep(AWAY_SECONDS)  # nobody tells when it is back


def unexpected(what: str, error: Exception) -> str:
    """Log a failure that nobody thought of; returns it in words.

    Not what it says itself: that may be an address, or a link that opens something.
    """
    words, places = f"an unexpected {type(error).__name__}", "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s failed: %s\n%s", what, words, places)
    return words
