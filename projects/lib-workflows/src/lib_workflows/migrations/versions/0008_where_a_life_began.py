"""Where in the event log the life of a run began that has continued as new: its next life looks back to there."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("runs", sa.Column("life_position", sa.BigInteger))


def downgrade() -> None:
    op.drop_column("runs", "life_position")
