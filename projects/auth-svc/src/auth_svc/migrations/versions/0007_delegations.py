"""Delegations: what clients may do for people while they are away; and which clients a resource lets do so."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "delegations",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("family_id", sa.Text, sa.ForeignKey("families.id"), nullable=False, unique=True),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("used_at", sa.BigInteger),
    )
    op.create_index("delegations_expires", "delegations", ["expires_at"])
    op.add_column("resources", sa.Column("actors", sa.Text, nullable=False, server_default="[]"))


def downgrade() -> None:
    op.drop_column("resources", "actors")
    op.drop_table("delegations")
