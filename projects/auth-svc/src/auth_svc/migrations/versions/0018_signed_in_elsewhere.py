"""Whoever comes from another provider has signed in there at some moment, which may have to be a late one."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.add_column("upstream_sign_ins", sa.Column("since", sa.BigInteger))
    op.add_column("upstream_arrivals", sa.Column("authenticated_at", sa.BigInteger, nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("upstream_arrivals", "authenticated_at")
    op.drop_column("upstream_sign_ins", "since")
