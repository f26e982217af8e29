"""How fast runs of each key of a queue begin, and how full the buckets of those are that began lately."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.create_table(
        "key_buckets",
        sa.Column("queue", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("full_at", sa.BigInteger, nullable=False),
    )
    op.create_index("key_buckets_full", "key_buckets", ["queue", "full_at"])
    op.add_column("queues", sa.Column("rate_per_key", sa.BigInteger))
    op.add_column("queues", sa.Column("rate_per_key_micros", sa.BigInteger))


def downgrade() -> None:
    op.drop_column("queues", "rate_per_key_micros")
    op.drop_column("queues", "rate_per_key")
    op.drop_table("key_buckets")
