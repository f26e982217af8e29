"""Delegations: by which id the AuthService knows what a run, or a schedule, may do for a person."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "delegations",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("holder", sa.Text, primary_key=True),
        sa.Column("delegation", sa.Text, nullable=False),
        sa.Column("principal", sa.Text, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger),
    )


def downgrade() -> None:
    op.drop_table("delegations")
