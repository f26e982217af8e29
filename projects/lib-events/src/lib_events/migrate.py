"""Bring each member's tables to the newest revision; Alembic is imported only when there is something to do."""

from collections.abc import Sequence
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
    present = set(inspect(core).get_table_names())
    for schema in schemas:
        current = _current(core, schema) if version_table(schema) in present else None
        known = revisions(schema)
        if current is not None and current not in known:
            raise SchemaTooNew(
                f"{schema.name} tables must be at revision {known[-1]} or older, got {current}; "
                "start the newer release that wrote this database, or restore a backup"
            )
        if current != known[-1]:
            _upgrade(core, schema)


def _current(core: Connection, schema: Schema) -> str | None:
    table = Table(version_table(schema), MetaData(), Column("version_num", Text))
    revision: str | None = core.scalar(select(table.c.version_num))
    return revision


def _upgrade(core: Connection, schema: Schema) -> None:
    from alembic.config import Config  # noqa: PLC0415 - about 100 ms that a current database does not pay
    from alembic.runtime.environment import EnvironmentContext  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(files(schema.migrations)))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)

    def steps(revision: Any, _context: Any) -> Any:
        return script._upgrade_revs("head", revision)

    with EnvironmentContext(config, script, fn=steps) as environment:
        environment.configure(
            connection=core,
            target_metadata=schema.metadata,
            version_table=version_table(schema),
            transactional_ddl=False,  # the caller's transaction spans all schemas
        )
        environment.run_migrations()
