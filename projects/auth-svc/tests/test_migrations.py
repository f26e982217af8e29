"""Migrations bring a database to exactly what the tables say, keep what is in it, and can be taken back."""

from importlib.resources import files

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text

from auth_svc.tables import SCHEMA
from lib_events.adapters.migrate import migrate, version_table

ADA = """INSERT INTO users
    (id, username, username_key, email, roles, created_at, password_changed_at, tokens_valid_after) VALUES
    ('1', 'Ada', 'ada', 'Ada@Home.test', '["member"]', 1, 1, 0)"""

OLD_CLIENT = """INSERT INTO clients
    (id, name, redirect_uris, post_logout_redirect_uris, grant_types, scopes, roles, consent, access_token_seconds,
    loopback_only, created_at) VALUES
    ('old', 'Old', '[]', '[]', '[]', '[]', '[]', 'once', 300, false, 1)"""


@pytest.fixture
def core():
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def move(core, revision):
    """Bring the database to a revision, up or down, as Alembic does."""
    config = Config()
    config.set_main_option("script_location", str(files(SCHEMA.migrations)))
    config.set_main_option("path_separator", "os")
    folder = ScriptDirectory.from_config(config)
    script = folder._downgrade_revs if head_of(core) else folder._upgrade_revs
    with EnvironmentContext(config, folder, fn=lambda current, _: script(revision, current)) as environment:
        environment.configure(connection=core, version_table=version_table(SCHEMA))
        environment.run_migrations()


def head_of(core):
    return MigrationContext.configure(core, opts={"version_table": version_table(SCHEMA)}).get_current_revision()


def test_the_migrated_tables_are_the_described_ones(core):
    migrate(core, [SCHEMA])
    context = MigrationContext.configure(core, opts={"version_table": version_table(SCHEMA)})
    assert compare_metadata(context, SCHEMA.metadata) == []


def test_accounts_survive_the_way_up_and_down(core):
    move(core, "0001")
    before = {table: columns_of(core, table) for table in inspect(core).get_table_names()}
    core.execute(text(ADA))
    core.commit()
    migrate(core, [SCHEMA])
    row = core.execute(text("SELECT email_key, email_verified_at, name, deleted_at FROM users")).one()
    assert tuple(row) == ("ada@home.test", None, None, None)
    core.commit()
    move(core, "0001")
    assert core.execute(text("SELECT username, email FROM users")).one() == ("Ada", "Ada@Home.test")
    assert {table: columns_of(core, table) for table in inspect(core).get_table_names()} == before


def test_clients_that_are_there_count_as_used_when_use_begins_to_be_noted(core):
    move(core, "0010")
    core.execute(text(OLD_CLIENT))
    core.commit()
    migrate(core, [SCHEMA])
    assert core.execute(text("SELECT granted_at FROM clients")).scalar_one() > 1_700_000_000_000_000


def test_the_audit_tells_who_made_a_registration_token_before_its_row_did(core):
    move(core, "0015")
    for name in ("told", "untold"):
        core.execute(
            text(
                "INSERT INTO registration_tokens (id, digest, scopes, note, uses_left, created_at, expires_at) "
                f"VALUES ('{name}', '{name}', '[]', '', 1, 1, 2)"
            )
        )
    core.execute(
        text(
            "INSERT INTO audit (at, who, what, about, detail) "
            "VALUES (1, 'grace', 'registration-token.issued', 'told', '{}')"
        )
    )
    core.commit()
    migrate(core, [SCHEMA])
    rows = core.execute(text("SELECT id, created_by FROM registration_tokens ORDER BY id")).all()
    assert [tuple(row) for row in rows] == [("told", "grace"), ("untold", "")]


def columns_of(core, table):
    return {column["name"] for column in inspect(core).get_columns(table)}
