"""Events that have no place in the log yet, as long as nobody gives them one: what runs and triggers find of them."""

from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from sqlalchemy import select, text

from lib_events.database import open_database
from lib_events.event import Event
from lib_events.event_log import SCHEMA as EVENTS_SCHEMA
from lib_events.event_log import START_ROWS, committed_position
from lib_events.lifecycle import running
from lib_events.nats.relay import Relay
from lib_events.testing import wait_until
from lib_workflows import Context, Engine, EventType, Registry, workflow
from lib_workflows.tables import SCHEMA, runs


@dataclass
class Word:
    text: str


Said = EventType("people.word.said", Word)


@workflow(name="listens")
async def listens(ctx: Context) -> str:
    return (await ctx.wait_event(Said)).text


@workflow(name="starts-a-listener")
async def starts_a_listener(ctx: Context) -> str:
    await ctx.publish(Said, Word("before"))
    await ctx.sleep(0.001)  # it is on disk
    return await ctx.child(listens)


@workflow(name="speaks", on=Said)
async def speaks(ctx: Context, word: Word) -> str:
    return word.text


@asynccontextmanager
async def without_relay(url, *workflows):
    """An engine on a database where nobody gives events their places, but as they are committed (SQLite)."""
    database = await open_database(url, service="workflows", schemas=[EVENTS_SCHEMA, SCHEMA])
    try:
        async with Engine(database, Registry.of(list(workflows))) as engine:
            yield engine
    finally:
        await database.close()


def relaying(engine):
    return running(Relay(engine.database, None))


async def say(engine, *words):
    events = [Event.of(Said, Word(word), source="/people") for word in words]
    await engine.database.transact(lambda connection: connection.publish(*events))


def outputs(connection, status, name):
    return connection.scalars(select(runs.c.output).where(runs.c.status == status, runs.c.workflow == name)).all()


@pytest.mark.parametrize("how", ["at once", "by id"])
async def test_a_run_looks_back_to_its_start_also_where_what_came_before_gets_its_place_later(database_url, how):
    async with without_relay(database_url, listens) as engine:
        await say(engine, "before", "just before")
        handle = await engine.start(listens, id=None if how == "at once" else "listener")
        await say(engine, "after")
        async with relaying(engine):
            assert await handle.result(10) == "after"


def say_very_often(connection, rows):
    given = "generate_series(1, :rows) AS given(number)"
    columns = "count, id, source, type, time, imported, body"
    values = "1, 'e' || number, '/people', 'people.word.said', 0, false, ''"
    connection.execute(text(f"INSERT INTO events ({columns}) SELECT {values} FROM {given}"), {"rows": rows})


@pytest.mark.postgresql
async def test_a_start_does_not_count_more_events_without_a_place_than_it_has_time_for(postgresql_url):
    """Nobody gives them places: each start counted all of them, and took longer than the one before."""
    looks_back = select(runs.c.look_back_position)
    async with without_relay(postgresql_url, listens) as engine:
        before = await engine.database.read(committed_position)
        await engine.database.transact(say_very_often, START_ROWS + 1_000)
        for run_id in (None, "by-id"):
            await engine.start(listens, id=run_id)
        found = await engine.database.read(lambda connection: connection.scalars(looks_back).all())
        assert found == [before + START_ROWS] * 2
        assert await engine.database.read(committed_position) > before + START_ROWS + 1_000


async def test_a_child_does_not_find_what_its_parent_has_told_before(database_url):
    async with without_relay(database_url, listens, starts_a_listener) as engine:
        handle = await engine.start(starts_a_listener)
        await wait_until(lambda: engine.database.read(outputs, "waiting", "listens"))
        await say(engine, "after")
        async with relaying(engine):
            assert await handle.result(10) == "after"


async def test_a_new_trigger_begins_with_the_next_event_also_where_those_before_get_their_places_later(database_url):
    async with without_relay(database_url, listens) as engine:
        await say(engine, "before")
    async with without_relay(database_url, speaks) as engine:
        await say(engine, "after")
        async with relaying(engine):
            assert await wait_until(lambda: engine.database.read(outputs, "completed", "speaks")) == ['"after"']
