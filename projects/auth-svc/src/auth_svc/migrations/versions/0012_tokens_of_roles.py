"""Roles say since when access tokens that name them are good."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("roles", sa.Column("tokens_valid_after", sa.BigInteger, nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("roles", "tokens_valid_after")
