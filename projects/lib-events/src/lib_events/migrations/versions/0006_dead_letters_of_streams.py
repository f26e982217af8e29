"""A stream that was made anew gives places of before to others: so a dead letter is told from others by its id, too.

And the place up to which a stream is imported is told with the consumer that it is of.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
REDRIVEN = sa.text("redriven_at IS NOT NULL")
NAMES = "id, durable, position, event_id, error, stack, attempts, dead_at, type, body, redriven_at, deferred_attempts"
TAKEN = """
    SELECT 1 FROM dead_letters AS earlier WHERE earlier.durable = dead_letters.durable
        AND earlier.position = dead_letters.position AND earlier.id < dead_letters.id
"""


def upgrade() -> None:
    _tell_apart_by("dead_letters_event", "durable", "position", "event_id", before="dead_letters_durable_position")
    op.add_column("import_places", sa.Column("consumer", sa.Text))


def downgrade() -> None:
    op.drop_column("import_places", "consumer")
    # To a place that no event has: so none is lost.
    op.execute(f"UPDATE dead_letters SET position = -id WHERE EXISTS ({TAKEN})")  # noqa: S608 - our own words
    _tell_apart_by("dead_letters_durable_position", "durable", "position", before="dead_letters_event")


def _tell_apart_by(name: str, *columns: str, before: str) -> None:
    if op.get_context().dialect.name == "sqlite":
        _make_anew(sa.UniqueConstraint(*columns, name=name))
    else:
        op.drop_constraint(before, "dead_letters")
        op.create_unique_constraint(name, "dead_letters", columns)


def _make_anew(constraint: sa.UniqueConstraint) -> None:
    """SQLite has no other way to change a constraint."""
    op.drop_index("dead_letters_redriven", "dead_letters")
    op.rename_table("dead_letters", "dead_letters_before")
    op.create_table(
        "dead_letters",
        sa.Column("id", NUMBER, primary_key=True, autoincrement=True),
        sa.Column("durable", sa.Text, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("stack", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("dead_at", sa.BigInteger, nullable=False),
        sa.Column("type", sa.Text),
        sa.Column("body", sa.LargeBinary),
        sa.Column("redriven_at", sa.BigInteger),
        sa.Column("deferred_attempts", sa.Integer, nullable=False, server_default="0"),
        constraint,
    )
    op.execute(f"INSERT INTO dead_letters ({NAMES}) SELECT {NAMES} FROM dead_letters_before")  # noqa: S608
    op.drop_table("dead_letters_before")
    op.create_index("dead_letters_redriven", "dead_letters", ["durable"], sqlite_where=REDRIVEN)
