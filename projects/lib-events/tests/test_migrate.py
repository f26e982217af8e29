"""Migrations bring a database to exactly what the tables say."""

import uuid

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from lib_events.adapters.migrate import migrate, revisions, version_table
from lib_events.database import open_database
from lib_events.event_log import SCHEMA


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
