"""Revocations and how far the issuer's list of them was read."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "token_revocations",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, primary_key=True),
        sa.Column("issued_until", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    op.create_index("token_revocations_expires", "token_revocations", ["expires_at"])
    op.create_table(
        "token_revocation_cursors",
        sa.Column("issuer", sa.Text, primary_key=True),
        sa.Column("cursor", sa.Text, nullable=False),
    )


def downgrade() -> None:
    for table in (
        "token_revocation_cursors",
        "token_revocations",
    ):
        op.drop_table(table)
