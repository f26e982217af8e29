"""Migrations bring a database to exactly what the tables say."""

import uuid
from importlib.resources import files

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, insert, select, text

from lib_events.adapters.migrate import migrate, revisions, version_table
from lib_events.database import open_database
from lib_events.event_log import SCHEMA
from lib_events.tables import dead_letters


def test_revisions_are_read_from_the_file_names_oldest_first():
    assert revisions(SCHEMA) == sorted(revisions(SCHEMA))
    assert revisions(SCHEMA)[0] == "0001"


def test_the_migrated_tables_are_the_described_ones():
    engine = create_engine("sqlite://")
    with engine.connect() as core:
        migrate(core, [SCHEMA])
        context = MigrationContext.configure(core, opts={"version_table": version_table(SCHEMA)})
        assert compare_metadata(context, SCHEMA.metadata) == []
    engine.dispose()


async def test_dead_letters_stay_when_others_may_have_their_places_and_when_they_may_not(database_url):
    """A stream that was made anew gives places of before to other events; a release before knows one for each."""
    database = await open_database(database_url, service="test-svc", schemas=[SCHEMA])
    letter = {"durable": "d", "position": 1, "error": "e", "stack": "", "attempts": 1, "dead_at": 0, "body": b"{}"}
    rows = [letter | {"event_id": event_id, "deferred_attempts": 0} for event_id in ("1.1", "2.1")]
    kept = select(dead_letters.c.id, dead_letters.c.event_id, dead_letters.c.body)
    await database.transact(lambda connection: connection.execute(insert(dead_letters), rows))
    before = await database.read(lambda connection: connection.execute(kept).all())
    for revision in ("0005", "head"):
        await database.transact(lambda connection, to=revision: _go_to(connection, to))
        assert await database.read(lambda connection: connection.execute(kept).all()) == before
    await database.close()


def _go_to(connection, revision):
    """Upgrade or downgrade the tables, as an operator does with Alembic."""
    config = Config()
    config.set_main_option("script_location", str(files(SCHEMA.migrations)))
    config.set_main_option("path_separator", "os")
    folder = ScriptDirectory.from_config(config)
    steps = folder._upgrade_revs if revision == "head" else folder._downgrade_revs
    table = version_table(SCHEMA)
    with EnvironmentContext(config, folder, fn=lambda current, _context: steps(revision, current)) as environment:
        environment.configure(connection=connection._core, version_table=table)
        environment.run_migrations()


@pytest.mark.postgresql
async def test_two_services_keep_their_tables_apart_in_one_postgresql(postgresql_server):
    separator = "&" if "?" in postgresql_server else "?"
    names = [f"test_{uuid.uuid4().hex[:8]}" for _ in range(2)]
    first, second = [
        await open_database(f"{postgresql_server}{separator}schema={name}", service="test-svc", schemas=[SCHEMA])
        for name in names
    ]
    await first.transact(lambda c: c.execute(text("INSERT INTO subscription_cursors VALUES ('a', 1, 0)")))
    assert await second.read(lambda c: c.scalar(text("SELECT count(*) FROM subscription_cursors"))) == 0
    await first.close()
    await second.close()
