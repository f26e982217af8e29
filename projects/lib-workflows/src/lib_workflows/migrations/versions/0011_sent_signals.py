"""The keys of signals that were sent with one: sent again, they are the same."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_table(
        "sent_signals",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
    )


def downgrade() -> None:
    op.drop_table("sent_signals")
