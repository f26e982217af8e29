"""How long a sign-in lasts is a setting, so when it began no longer follows from when it ends."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    op.add_column("sessions", sa.Column("started_at", sa.BigInteger))


def downgrade() -> None:
    op.drop_column("sessions", "started_at")
