"""What a subscription handled out of order; dead letters that are redriven; how far the log is pruned."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

REDRIVEN = sa.text("redriven_at IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "handled_events",
        sa.Column("durable", sa.Text, primary_key=True),
        sa.Column("position", sa.BigInteger, primary_key=True),
    )
    pruned = sa.Column("pruned_position", sa.BigInteger, nullable=False, server_default="0")
    op.add_column("event_log_state", pruned)
    op.drop_column("event_log_state", "batch_end")  # a message follows from its row
    op.add_column("dead_letters", sa.Column("type", sa.Text))
    op.add_column("dead_letters", sa.Column("body", sa.LargeBinary))
    op.add_column("dead_letters", sa.Column("redriven_at", sa.BigInteger))
    op.create_index(
        "dead_letters_redriven", "dead_letters", ["durable"], sqlite_where=REDRIVEN, postgresql_where=REDRIVEN
    )


def downgrade() -> None:
    op.drop_index("dead_letters_redriven", "dead_letters")
    for column in ("redriven_at", "body", "type"):
        op.drop_column("dead_letters", column)
    op.add_column("event_log_state", sa.Column("batch_end", sa.BigInteger))
    op.drop_column("event_log_state", "pruned_position")
    op.drop_table("handled_events")
