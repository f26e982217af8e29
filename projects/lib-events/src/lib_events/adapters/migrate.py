"""Bring each member's tables to the newest revision; Alembic is imported only when there is something to do.

A migration is SQL and nothing else: it is composed without looking at the database, and runs in one round trip.
"""

import io
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from sqlalchemy import Column, Connection, MetaData, Table, Text, inspect, select

from lib_events.database import Schema, SchemaTooNew


def version_table(schema: Schema) -> str:
    """The table that holds the revision of `schema` in a database."""
    return f"alembic_version_{schema.name}"


def revisions(schema: Schema) -> list[str]:
    """The revisions of `schema`, oldest first: files are named `<revision>_<what>.py`."""
    folder = files(schema.migrations) / "versions"
    return sorted(entry.name.split("_", 1)[0] for entry in folder.iterdir() if entry.name[:1].isdigit())


def migrate(core: Connection, schemas: Sequence[Schema]) -> None:
    """Upgrade every schema that is behind; raises `SchemaTooNew`. The caller owns the transaction."""
    tables = inspect(core)  # asked by name: a list of all tables is a look at those of every other schema, too
    for schema in schemas:
        current = _current(core, schema) if tables.has_table(version_table(schema)) else None
        known = revisions(schema)
        if current is not None and current not in known:
            raise SchemaTooNew(
                f"{schema.name} tables must be at revision {known[-1]} or older, got {current}; "
                "start the newer release that wrote this database, or restore a backup"
            )
        if current != known[-1]:
            _upgrade(core, schema, current)


def _current(core: Connection, schema: Schema) -> str | None:
    table = Table(version_table(schema), MetaData(), Column("version_num", Text))
    revision: str | None = core.scalar(select(table.c.version_num))
    return revision


def _upgrade(core: Connection, schema: Schema, current: str | None) -> None:
    """Run all statements in one round trip: what a migration locks, nobody waits for longer than that takes."""
    script = _script(core.dialect.name, schema, current)
    driver: Any = core.connection.dbapi_connection
    if core.dialect.name == "sqlite":
        driver.executescript(script)
    else:
        driver.run_async(lambda raw: raw.execute(script))


@cache  # it follows from the code alone; a process may open many databases
def _script(dialect_name: str, schema: Schema, current: str | None) -> str:
    """Return the SQL from the revision `current` to the newest one, as Alembic's offline mode writes it."""
    from alembic.config import Config  # noqa: PLC0415 - about 100 ms that a current database does not pay
    from alembic.runtime.environment import EnvironmentContext  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(files(schema.migrations)))
    config.set_main_option("path_separator", "os")
    folder = ScriptDirectory.from_config(config)

    def steps(revision: Any, _context: Any) -> Any:
        return folder._upgrade_revs("head", revision)

    script = io.StringIO()
    with EnvironmentContext(config, folder, fn=steps, as_sql=True, starting_rev=current) as environment:
        environment.configure(
            dialect_name=dialect_name,
            dialect_opts={"paramstyle": "named"},  # others double every percent sign
            output_buffer=script,
            version_table=version_table(schema),
            transactional_ddl=False,  # the caller's transaction spans all schemas
        )
        environment.run_migrations()
    return script.getvalue()
