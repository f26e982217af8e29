"""Which step an attempt and a heartbeat are of, and how long a worker's lease is.

Rows of before have none: they count for whatever step is asked for in their place, and their lease is believed.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    for table in ("attempts", "heartbeats"):
        op.add_column(table, sa.Column("name", sa.Text))
    op.add_column("workers", sa.Column("lease_micros", sa.BigInteger))


def downgrade() -> None:
    op.drop_column("workers", "lease_micros")
    for table in ("heartbeats", "attempts"):
        op.drop_column(table, "name")
