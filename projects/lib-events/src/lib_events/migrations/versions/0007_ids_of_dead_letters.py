"""No dead letter gets the id of one that is gone: SQLite gives the highest one again, unless it is told not to."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

REDRIVEN = sa.text("redriven_at IS NOT NULL")
NAMES = "id, durable, position, event_id, error, stack, attempts, dead_at, type, body, redriven_at, deferred_attempts"


def upgrade() -> None:
    if op.get_context().dialect.name != "sqlite":
        return
    op.drop_index("dead_letters_redriven", "dead_letters")
    op.rename_table("dead_letters", "dead_letters_before")
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
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
        sa.UniqueConstraint("durable", "position", "event_id", name="dead_letters_event"),
        sqlite_autoincrement=True,
    )
    op.execute(f"INSERT INTO dead_letters ({NAMES}) SELECT {NAMES} FROM dead_letters_before")  # noqa: S608 - our own words
    op.drop_table("dead_letters_before")
    op.create_index("dead_letters_redriven", "dead_letters", ["durable"], sqlite_where=REDRIVEN)


def downgrade() -> None:
    """A release before does with it as it is."""
