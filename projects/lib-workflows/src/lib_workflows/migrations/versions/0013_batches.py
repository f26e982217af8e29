"""Events that gather until they start one run together."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
TRIGGERED = (("batch_events", sa.BigInteger), ("batch_micros", sa.BigInteger), ("batch_key", sa.Text))


def upgrade() -> None:
    for name, kind in TRIGGERED:
        op.add_column("triggers", sa.Column(name, kind))
    op.create_table(
        "batches",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("workflow", sa.Text, nullable=False),
        sa.Column("event_type", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("queue_key", sa.Text),
        sa.Column("events", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("due_at", sa.BigInteger, nullable=False),
        sa.Column("last_position", sa.BigInteger, nullable=False),
        sa.Column("principal", sa.Text),
        sa.Column("correlation_id", sa.Text),
        sa.Column("causation_id", sa.Text),
        sa.Column("traceparent", sa.Text),
    )
    takes_more = sa.text("due_at > 0")
    one = ["workflow", "event_type", "key"]
    op.create_index("batches_open", "batches", one, unique=True, sqlite_where=takes_more, postgresql_where=takes_more)
    op.create_index("batches_due", "batches", ["due_at"])
    op.create_table(
        "gathered",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("position", sa.BigInteger, primary_key=True),
        sa.Column("payload", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("gathered")
    op.drop_table("batches")
    for name, _ in TRIGGERED:
        op.drop_column("triggers", name)
