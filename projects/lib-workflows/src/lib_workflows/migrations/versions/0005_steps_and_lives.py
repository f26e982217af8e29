"""Progress that steps go on from, how deep a child is, and how often a run has continued as new."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "heartbeats",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("operation", sa.Text, primary_key=True),
        sa.Column("progress", sa.Text, nullable=False),
        sa.Column("sent_at", sa.BigInteger, nullable=False),
    )
    for name in ("depth", "earlier_lives"):
        op.add_column("runs", sa.Column(name, sa.Integer, nullable=False, server_default="0"))
    op.add_column("runs", sa.Column("first_input", sa.Text))


def downgrade() -> None:
    op.drop_column("runs", "first_input")
    for name in ("earlier_lives", "depth"):
        op.drop_column("runs", name)
    op.drop_table("heartbeats")
