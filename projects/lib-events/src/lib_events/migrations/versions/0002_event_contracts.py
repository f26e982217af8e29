"""The schemas of the event types, version by version."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "event_contracts",
        sa.Column("type", sa.Text, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("schema", sa.Text, nullable=False),
        sa.Column("kept_at", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("event_contracts")
