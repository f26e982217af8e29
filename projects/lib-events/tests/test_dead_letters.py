"""What is put aside: whatever its error says, and whoever should handle it again."""

import pytest
import pytest_asyncio
from pydantic import BaseModel
from sqlalchemy import select

from lib_events.database import open_database
from lib_events.event import Event, EventType
from lib_events.event_log import SCHEMA
from lib_events.handling.dead_letters import (
    Burial,
    DeadLetterRefused,
    bury,
    bury_again,
    defer,
    discard,
    redrive,
    settle,
)
from lib_events.subscription import TryLater
from lib_events.tables import dead_letters


class Note(BaseModel):
    number: int


class Speechless(Exception):
    """Cannot say what it is about."""

    def __str__(self):
        raise RuntimeError("no words")


Noted = EventType("test.noted", Note)
ERRORS = [ValueError("a \0 in it"), ValueError("half of \ud83d"), Speechless()]


@pytest_asyncio.fixture
async def database(database_url):
    opened = await open_database(database_url, service="app-svc", schemas=[SCHEMA])
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def letter(database):
    event = Event.of(Noted, Note(number=1), source="/app-svc")
    burial = Burial.of(event, durable="notes", position=1, attempts=5)
    await database.transact(bury, burial, ValueError("no"))
    return (await letters(database))[0]


async def letters(database):
    return await database.read(lambda connection: connection.execute(select(dead_letters)).all())


@pytest.mark.parametrize("error", ERRORS, ids=["NUL", "half a character", "no text"])
async def test_an_error_is_kept_whatever_it_says(database, letter, error):
    """What could not be put aside was tried for ever, and nothing behind it was handled."""
    await database.transact(redrive, letter.id)
    await database.transact(bury_again, letter.id, error, 1, 0)
    (kept,) = await letters(database)
    assert kept.redriven_at is None
    assert kept.error.startswith((f"{type(error).__name__}: ",))


async def test_a_dead_letter_whose_subscription_is_gone_can_be_let_go_after_it_was_redriven(database, letter):
    await database.transact(redrive, letter.id)
    with pytest.raises(DeadLetterRefused, match="being handled again"):
        await database.transact(redrive, letter.id)
    await database.transact(discard, letter.id)
    assert await letters(database) == []
    assert not await database.transact(settle, letter.id), "whoever handles it hears that it is too late"


async def test_no_dead_letter_gets_the_id_of_one_that_is_gone(database, letter):
    """Whoever was still handling that one, or had it on a page, let another event go, unhandled."""
    await database.transact(redrive, letter.id)
    await database.transact(discard, letter.id)
    event = Event.of(Noted, Note(number=2), source="/app-svc")
    burial = Burial.of(event, durable="notes", position=2, attempts=1)
    await database.transact(defer, burial, TryLater("not yet", seconds=0), 0)
    assert not await database.transact(settle, letter.id)
    assert [found.event_id for found in await letters(database)] == [event.id]
