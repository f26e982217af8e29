"""Clients say how old a sign-in may be unless a request says it."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.add_column("clients", sa.Column("default_max_age", sa.Integer))


def downgrade() -> None:
    op.drop_column("clients", "default_max_age")
