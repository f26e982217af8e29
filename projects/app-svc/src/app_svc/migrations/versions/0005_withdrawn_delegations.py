"""Delegations that were taken back while what has them goes on: shown as stopped."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("delegations", sa.Column("withdrawn_at", sa.BigInteger))


def downgrade() -> None:
    op.drop_column("delegations", "withdrawn_at")
