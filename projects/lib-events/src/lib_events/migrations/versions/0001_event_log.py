"""The event log, its state, the durable subscriptions' cursors and the dead letters."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
UNPLACED = sa.text("last_position IS NULL")


def upgrade() -> None:
    op.create_table(
        "events",
        sa.Column("sequence", NUMBER, primary_key=True, autoincrement=True),
        sa.Column("last_position", sa.BigInteger),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("subject", sa.Text),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("correlation", sa.Text),
        sa.Column("imported", sa.Boolean, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("source", "id", name="events_source_id"),
    )
    op.create_index("events_last_position", "events", ["last_position"], unique=True)
    op.create_index("events_unplaced", "events", ["sequence"], sqlite_where=UNPLACED, postgresql_where=UNPLACED)
    op.create_index("events_type", "events", ["type", "last_position"])
    op.create_index("events_subject", "events", ["subject", "last_position"])
    state = op.create_table(
        "event_log_state",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("placed_position", sa.BigInteger, nullable=False),
        sa.Column("published_position", sa.BigInteger, nullable=False),
        sa.Column("batch_end", sa.BigInteger),
    )
    op.bulk_insert(state, [{"id": 1, "epoch": 1, "placed_position": 0, "published_position": 0}])
    op.create_table(
        "subscription_cursors",
        sa.Column("durable", sa.Text, primary_key=True),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
    )
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
        sa.UniqueConstraint("durable", "position", name="dead_letters_durable_position"),
    )


def downgrade() -> None:
    for table in ("dead_letters", "subscription_cursors", "event_log_state", "events"):
        op.drop_table(table)
