"""Whoever confirms a device is told from where it asked, which somebody who sends others a code does not choose."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.add_column("device_codes", sa.Column("address", sa.Text))


def downgrade() -> None:
    op.drop_column("device_codes", "address")
