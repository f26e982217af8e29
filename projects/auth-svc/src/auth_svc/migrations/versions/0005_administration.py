"""The audit's chain."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0001"

NOTHING = "0" * 64  # the hash before the first line


def upgrade() -> None:
    op.add_column("audit", sa.Column("position", sa.BigInteger))
    op.add_column("audit", sa.Column("hash", sa.Text))
    op.create_index("audit_position", "audit", ["position"], unique=True)
    chain = op.create_table(
        "audit_chain",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("anchor_position", sa.BigInteger, nullable=False),
        sa.Column("anchor_hash", sa.Text, nullable=False),
        sa.Column("anchored_at", sa.BigInteger),
    )
    # Lines from before are chained by the first start, as if they had just been written.
    op.bulk_insert(chain, [{"id": 1, "position": 0, "hash": NOTHING, "anchor_position": 0, "anchor_hash": NOTHING}])
