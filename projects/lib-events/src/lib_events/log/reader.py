"""Reading on in the log: from its tail in memory at once, or else from the table."""

import asyncio

from lib_events.database import Connection, Database
from lib_events.event_filter import Wanted
from lib_events.event_log import PAGE_BYTES, Cursor, Page, Rows, open_rows, rows_after


async def read_page(database: Database, position: int, wanted: Wanted, *, limit: int) -> Page:
    """Return what is wanted of up to `limit` rows after `position`, decoded; of fewer where they are large."""
    rows = _rows_of_tail(database, position, wanted, limit=limit, bytes_limit=PAGE_BYTES)
    if rows is None:
        return await database.read(_page_of_table, position, wanted, limit)
    page = open_rows(rows, position, wanted)
    await _give_way(rows)
    return page


async def read_rows(database: Database, position: int, wanted: Wanted, *, limit: int, bytes_limit: int) -> Rows:
    """Return what is wanted of up to `limit` rows after `position`, as they are stored."""
    rows = _rows_of_tail(database, position, wanted, limit=limit, bytes_limit=bytes_limit)
    if rows is None:
        return await database.read(_rows_of_table, position, wanted, limit, bytes_limit)
    await _give_way(rows)
    return rows


def _rows_of_tail(database: Database, position: int, wanted: Wanted, *, limit: int, bytes_limit: int) -> Rows | None:
    tail = database.tail
    rows = tail.after(position, limit=limit)
    if rows is None:
        return None
    found = [row for row in rows if wanted.takes(row)]
    end = rows[-1].last_position if rows else position
    return Rows.take(found, limit=limit, bytes_limit=bytes_limit, end=end, head=Cursor(tail.epoch, tail.end))


async def _give_way(rows: Rows) -> None:
    """Let others have their turn before what follows is read, too."""
    if rows.position < rows.head.position:
        await asyncio.sleep(0)


def _page_of_table(connection: Connection, position: int, wanted: Wanted, limit: int) -> Page:
    return open_rows(rows_after(connection, position, wanted, limit=limit, bytes_limit=PAGE_BYTES), position, wanted)


def _rows_of_table(connection: Connection, position: int, wanted: Wanted, limit: int, bytes_limit: int) -> Rows:
    return rows_after(connection, position, wanted, limit=limit, bytes_limit=bytes_limit)
