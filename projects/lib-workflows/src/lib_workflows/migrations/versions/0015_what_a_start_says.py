"""What a start says that neither id nor moment tells: in which life of its parent, and how long the run may take."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
LASTING = ("runs", "triggers", "batches")


def upgrade() -> None:
    op.add_column("runs", sa.Column("parent_life", sa.Integer))
    for table in LASTING:
        op.add_column(table, sa.Column("deadline_micros", sa.BigInteger))


def downgrade() -> None:
    for table in reversed(LASTING):
        op.drop_column(table, "deadline_micros")
    op.drop_column("runs", "parent_life")
